// What the page does without asking the server: pulling a comparison, opening a picture, closing a question.
document.addEventListener("input", (event) => {
  const slider = event.target.closest?.("[data-compare]");
  if (slider) slider.parentElement.style.setProperty("--at", slider.value + "%");
});

document.addEventListener("click", (event) => {
  const close = event.target.closest?.("[data-close]");
  if (close) close.closest("details").open = false;
  for (const open of document.querySelectorAll("details.ds-ask[open]")) {
    if (!open.contains(event.target)) open.open = false;
  }
  const picture = event.target.closest?.("a[data-zoom]");
  if (!picture || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const dialog = document.createElement("dialog");
  const image = document.createElement("img");
  const caption = document.createElement("p");
  dialog.className = "ds-zoom";
  image.src = picture.href;
  image.alt = caption.textContent = picture.querySelector("img")?.alt ?? "";
  dialog.append(image, caption);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
});
