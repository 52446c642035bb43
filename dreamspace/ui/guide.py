"""How the page works: panels that follow the workspace, and actions that lead from one view to the next."""

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from dreamspace.jobs.workspace import Workspace
from dreamspace.ui.history import Histories
from dreamspace.ui.page import STEPS, Page, View

LIVE_SECONDS = 1.5
IDLE_SECONDS = 4.0

# Clicks on elements with `data-event` become events of the component, with the element's data attributes.
_CLICKS_SCRIPT = """
const names = EVENT_NAMES;
element.addEventListener("click", (click) => {
  const target = click.target.closest("[data-event]");
  if (!target || !names.includes(target.dataset.event)) return;
  if (click.ctrlKey || click.metaKey || click.shiftKey) return;
  click.preventDefault();
  trigger(target.dataset.event, { ...target.dataset });
});
"""

Action = Callable[..., Any]


@dataclass(frozen=True)
class _Panel:
    component: gr.components.Component
    update: Callable[[Page], Any]


@dataclass(frozen=True)
class _Link:
    listener: Callable[..., Any]
    action: Action
    inputs: Sequence[gr.components.Component]
    outputs: Sequence[gr.components.Component]
    fills_form: bool


@dataclass
class Guide:
    """The page while it is built: its panels, its form, and what leads where.

    A *panel* is a component whose value follows from a `Page`. An *action* takes a `Page`, the data of the
    click and its inputs, and returns the next `View` (and values for its outputs). After each action and at
    each tick of the timer all panels are looked at again, and those that changed are sent.

    The one thing that a browser keeps is its address (a hidden text field); everything else is read from the
    workspace.
    """

    workspace: Workspace
    address: gr.Textbox
    histories: Histories = field(default_factory=Histories)
    _panels: list[_Panel] = field(default_factory=list)
    _links: list[_Link] = field(default_factory=list)
    _form: list[_Panel] = field(default_factory=list)

    def page(self, address: str) -> Page:
        """What a visitor at this address sees now."""
        return Page(self.workspace, self.histories, View.parse(address))

    def html(
        self,
        update: Callable[[Page], str] | None,
        *,
        events: Sequence[str] = (),
        script: str = "",
        **options: Any,
    ) -> gr.HTML:
        """A piece of HTML; with `update` it is a panel.

        Args:
            update: makes the HTML; None for one that an action fills.
            events: names of its events, for elements with `data-event`.
            script: JavaScript that runs when it is loaded, with `element`, `trigger` and `watch`.
        """
        clicks = _CLICKS_SCRIPT.replace("EVENT_NAMES", json.dumps(list(events))) if events else ""
        component = gr.HTML("", js_on_load=(clicks + script) or None, apply_default_css=False, **options)
        if update is not None:
            self._panels.append(_Panel(component, lambda page: str(update(page))))
        return component

    def follow(self, component: gr.components.Component, update: Callable[[Page], dict[str, Any]]) -> None:
        """Let a component's properties follow the page; `update` returns `gr.update(...)`."""
        self._panels.append(_Panel(component, update))

    def form(self, component: gr.components.Component, value: Callable[[Page], Any]) -> None:
        """Fill a field of the form when another run or subject is opened, and leave it to the visitor then."""
        self._form.append(_Panel(component, value))

    def link(
        self,
        listener: Callable[..., Any],
        action: Action,
        inputs: Sequence[gr.components.Component] = (),
        outputs: Sequence[gr.components.Component] = (),
        *,
        fills_form: bool = False,
    ) -> None:
        """Let an event run an action; `ValueError`s of it are shown as they are."""
        self._links.append(_Link(listener, action, inputs, outputs, fills_form))

    def wire(self, demo: gr.Blocks, walkthrough: gr.Walkthrough) -> None:
        """Connect everything; to be called once, inside of `demo`, when all is built."""
        address = self.address
        sent = gr.State({})
        timer = gr.Timer(LIVE_SECONDS)
        self.follow(walkthrough, lambda page: gr.update(selected=STEPS.index(page.view.step)))
        self.follow(timer, lambda page: gr.update(value=LIVE_SECONDS if _is_live(page) else IDLE_SECONDS))
        outputs = [*(panel.component for panel in self._panels), sent]
        fields = [field.component for field in self._form]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}

        def restore(request: gr.Request) -> tuple[Any, ...]:
            page = self.page(str(request.query_params))
            return str(request.query_params), *(field.update(page) for field in self._form)

        def fill(at: str) -> list[Any]:
            page = self.page(at)
            return [field.update(page) for field in self._form]

        def refresh(at: str, digests: dict[str, str]) -> Any:
            return self._changes(self.page(at), digests)

        show = {"fn": refresh, "inputs": [address, sent], "outputs": outputs, **quiet}
        demo.load(restore, None, [address, *fields], **quiet).then(**show)
        timer.tick(**show, queue=False, trigger_mode="once")
        for link in self._links:
            done = link.listener(
                self._handler(link.action), [address, *link.inputs], [address, *link.outputs], **quiet
            )
            if link.fills_form:
                done = done.success(fill, address, fields, **quiet)
            done.success(**show)

    def _handler(self, action: Action) -> Callable[..., Any]:
        wants_progress = "progress" in inspect.signature(action).parameters

        def handle(address: str, event: gr.EventData, *values: Any) -> Any:
            return self._run(action, address, event, values)

        def handle_slowly(address: str, event: gr.EventData, *values: Any, progress=gr.Progress()) -> Any:  # noqa: B008
            return self._run(action, address, event, values, progress=progress)

        return handle_slowly if wants_progress else handle

    def _run(
        self, action: Action, address: str, event: gr.EventData, values: Sequence[Any], **extra: Any
    ) -> Any:
        clicked = event._data if isinstance(event._data, dict) else {}
        try:
            result = action(self.page(address), clicked, *values, **extra)
        except ValueError as error:
            raise gr.Error(
                str(error), duration=None, title="This does not work yet", print_exception=False
            ) from None
        if isinstance(result, View):
            return result.address
        view, *outputs = result
        return view.address, *outputs

    def _changes(self, page: Page, digests: dict[str, str]) -> Any:
        """Updates for the panels that differ from what the browser was sent, then the new digests."""
        updates, new_digests = [], {}
        for number, panel in enumerate(self._panels):
            update = panel.update(page)
            digest = hashlib.sha256(repr(update).encode()).hexdigest()[:16]
            name = str(number)
            updates.append(gr.skip() if digests.get(name) == digest else update)
            new_digests[name] = digest
        return gr.skip() if new_digests == digests else (*updates, new_digests)


def _is_live(page: Page) -> bool:
    jobs = [*page.jobs("generate")[:1], *page.jobs("publish")[:1]]
    return any(not run.status.is_final for run in page.runs) or any(
        not page.status(job).is_final for job in jobs
    )
