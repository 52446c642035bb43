// The mask editor: a photo, and over it a canvas on which the mask is painted. What is dark is not learned.
const TINT = "rgba(28, 16, 84, 0.68)";
const MAX_UNDO = 24;

element.addEventListener("click", (click) => {
  const tile = click.target.closest("[data-edit]");
  if (tile) openEditor(tile.dataset);
});

function openEditor({ edit: id, photo, mask: maskUrl, number, known }) {
  const dialog = document.createElement("dialog");
  dialog.className = "ds-editor";
  dialog.setAttribute("aria-label", "Mask of photo " + number);
  dialog.innerHTML = `
    <header><strong></strong><button type="button" data-do="close" aria-label="Close">×</button></header>
    <div class="ds-stage"><img alt=""><canvas></canvas><i></i></div>
    <div class="ds-tools">
      <div class="ds-segments" role="group" aria-label="Tool">
        <button type="button" data-tool="paint" aria-pressed="true">Paint</button>
        <button type="button" data-tool="erase" aria-pressed="false">Erase</button>
      </div>
      <label>Brush <input type="range" min="4" max="160" value="36" aria-label="Brush size"></label>
      <button type="button" class="ds-button" data-do="undo" disabled>Undo</button>
      <span></span>
      ${known ? '<button type="button" class="ds-button" data-do="forget">Remove mask</button>' : ""}
      <button type="button" class="ds-button is-primary" data-do="save" disabled>Save</button>
    </div>`;
  dialog.querySelector("strong").textContent = "Photo " + number + ": paint what is the subject";
  // Inside of the page: rules of style.css for small windows reach no further.
  document.querySelector("#frame").append(dialog);
  const [stage, picture, canvas, ring] = ["div.ds-stage", "img", "canvas", "i"].map((part) => dialog.querySelector(part));
  const [size, undo, save] = ["input", "[data-do=undo]", "[data-do=save]"].map((part) => dialog.querySelector(part));
  const view = canvas.getContext("2d");
  const mask = document.createElement("canvas");
  const brush = mask.getContext("2d", { willReadFrequently: true });
  const past = [];
  let tool = "paint", last = null;

  picture.src = photo;
  const start = new Image();
  start.onload = () => {
    for (const layer of [mask, canvas]) [layer.width, layer.height] = [start.naturalWidth, start.naturalHeight];
    stage.style.aspectRatio = mask.width + " / " + mask.height;
    stage.style.setProperty("--shape", mask.width / mask.height);
    brush.drawImage(start, 0, 0);
    const pixels = brush.getImageData(0, 0, mask.width, mask.height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      pixels.data[at + 3] = pixels.data[at];
      pixels.data[at] = pixels.data[at + 1] = pixels.data[at + 2] = 255;
    }
    brush.putImageData(pixels, 0, 0);
    show();
    save.disabled = false;
  };
  start.src = maskUrl;
  dialog.showModal();

  function show() {
    view.globalCompositeOperation = "copy";
    view.fillStyle = TINT;
    view.fillRect(0, 0, canvas.width, canvas.height);
    view.globalCompositeOperation = "destination-out";
    view.drawImage(mask, 0, 0);
  }
  function choose(name) {
    tool = name;
    for (const button of dialog.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === name);
  }
  function undoOnce() {
    if (past.length) brush.putImageData(past.pop(), 0, 0);
    undo.disabled = !past.length;
    show();
  }
  // The brush is as wide on the screen as its number says, whatever the size of the photo.
  const scale = () => mask.width / canvas.clientWidth;
  function place(event) {
    const box = canvas.getBoundingClientRect();
    ring.style.cssText = `left:${event.clientX - box.left}px;top:${event.clientY - box.top}px;width:${size.value}px;height:${size.value}px`;
    return [(event.clientX - box.left) * scale(), (event.clientY - box.top) * scale()];
  }
  function stroke(to) {
    brush.globalCompositeOperation = tool === "paint" ? "source-over" : "destination-out";
    brush.lineCap = brush.lineJoin = "round";
    brush.strokeStyle = "#fff";
    brush.lineWidth = size.value * scale();
    brush.beginPath();
    brush.moveTo(...(last ?? to));
    brush.lineTo(to[0] + 0.01, to[1]);
    brush.stroke();
    last = to;
    show();
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (save.disabled || event.button) return;
    canvas.setPointerCapture(event.pointerId);
    past.push(brush.getImageData(0, 0, mask.width, mask.height));
    if (past.length > MAX_UNDO) past.shift();
    undo.disabled = false;
    last = null;
    stroke(place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = place(event);
    if (canvas.hasPointerCapture(event.pointerId)) stroke(at);
  });
  function painting() {
    const flat = document.createElement("canvas");
    [flat.width, flat.height] = [mask.width, mask.height];
    const context = flat.getContext("2d");
    context.fillRect(0, 0, flat.width, flat.height);
    context.drawImage(mask, 0, 0);
    return flat.toDataURL("image/png");
  }
  dialog.addEventListener("click", ({ target }) => {
    const action = target.closest("[data-do]")?.dataset.do;
    if (target.closest("[data-tool]")) choose(target.closest("[data-tool]").dataset.tool);
    if (action === "undo") undoOnce();
    if (action === "save") trigger("save_mask", { id, painting: painting() });
    if (action === "forget") trigger("forget_mask", { id });
    if (action && action !== "undo") dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "b") choose("paint");
    if (event.key === "e") choose("erase");
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) undoOnce();
    if (event.key === "[" || event.key === "]") size.value = +size.value + (event.key === "]" ? 8 : -8);
  });
  dialog.addEventListener("close", () => dialog.remove());
}
