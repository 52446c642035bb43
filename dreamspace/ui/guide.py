"""How the page works: panels that follow the workspace, and actions that lead from one view to the next."""

import hashlib
import html
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import gradio as gr

from dreamspace.jobs.workspace import Workspace
from dreamspace.ui.history import Histories
from dreamspace.ui.page import STEPS, Page, View

LIVE_SECONDS = 1.5
IDLE_SECONDS = 4.0
ERROR_SECONDS = 15.0

QUIET = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
"""How events are wired that follow the page rather than do something.

They stay out of the queue: Gradio 6.31 closes the queue's stream when its last event is done, and an event
that joins at that moment is never heard of again. So only actions may meet there.
"""

# Clicks on elements with `data-event` become events of the component, with the element's data attributes.
_CLICKS_SCRIPT = """
const names = EVENT_NAMES;
element.addEventListener("click", (click) => {
  const target = click.target.closest("[data-event]");
  if (!target || !names.includes(target.dataset.event)) return;
  if (click.ctrlKey || click.metaKey || click.shiftKey) return;
  click.preventDefault();
  window.dreamspaceClicked = { ...target.dataset };
  trigger(target.dataset.event, { ...target.dataset });
});
"""

# The address with a part of it as the clicked element's data say.
_LEAD_SCRIPT = """
(address) => {
  const parts = new URLSearchParams(address);
  parts.set(NAME, window.dreamspaceClicked[NAME]);
  return parts.toString();
}
"""

Action = Callable[..., Any]

TriggerMode = Literal["once", "always_last"]


@dataclass(frozen=True)
class _Panel:
    component: gr.components.Component
    update: Callable[[Page], Any]
    follows_size: bool = False


@dataclass(frozen=True)
class _Link:
    listener: Callable[..., Any]
    action: Action
    inputs: Sequence[gr.components.Component]
    outputs: Sequence[gr.components.Component]
    fills: str
    busy: gr.components.Component | None
    trigger_mode: TriggerMode


@dataclass(frozen=True)
class _Consequence:
    components: Sequence[gr.components.Component]
    describe: Callable[[Page, Any], Sequence[Any]]


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
    _leads: list[tuple[Callable[..., Any], str]] = field(default_factory=list)
    _form: list[_Panel] = field(default_factory=list)
    _consequences: list[_Consequence] = field(default_factory=list)
    _inputs: list[gr.components.Component] = field(default_factory=list)
    _news: list[gr.Textbox] = field(default_factory=list)
    _read: Callable[[tuple[Any, ...]], Any] | None = None

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

    def form(
        self,
        component: gr.components.Component,
        value: Callable[[Page], Any],
        *,
        follows_size: bool = False,
    ) -> None:
        """Fill a field when another run or subject is opened, and leave it to the visitor from then on.

        Args:
            follows_size: whether it counts pixels of the training picture, and is filled anew with its size.
        """
        self._form.append(_Panel(component, value, follows_size))

    def fields(
        self, inputs: Sequence[gr.components.Component], read: Callable[[tuple[Any, ...]], Any]
    ) -> None:
        """Name the fields of a new training, of whose values `read` makes a form."""
        self._inputs, self._read = list(inputs), read

    def follow_fields(
        self,
        components: Sequence[gr.components.Component],
        describe: Callable[[Page, Any], Sequence[Any]],
        news: Callable[[Page], str] | None = None,
    ) -> None:
        """Let components follow the fields of a new training.

        Args:
            components: what `describe` makes a value or an update for, in its order.
            describe: takes the page and the form.
            news: differs when what lies on the disk makes a difference to them.
        """
        self._consequences.append(_Consequence(components, describe))
        if news is not None:
            self._news.append(gr.Textbox(visible="hidden"))
            self.follow(self._news[-1], lambda page: gr.update(value=news(page)))

    def link(
        self,
        listener: Callable[..., Any],
        action: Action,
        inputs: Sequence[gr.components.Component] = (),
        outputs: Sequence[gr.components.Component] = (),
        *,
        fills_form: bool = False,
        fills_sizes: bool = False,
        busy: gr.components.Component | None = None,
        trigger_mode: TriggerMode = "once",
    ) -> None:
        """Let an event run an action; `ValueError`s of it are shown as they are.

        Args:
            fills_form: whether the fields are filled anew where it leads to another run or subject.
            fills_sizes: whether those that follow the size are where it leads to another.
            busy: the component that shows that the action is at work.
            trigger_mode: what becomes of events that come while the action is at work: "once" drops them;
                "always_last" runs it once more, with what the fields hold then, but the data of the first
                event.
        """
        fills = "form" if fills_form else "sizes" if fills_sizes else ""
        self._links.append(_Link(listener, action, inputs, outputs, fills, busy, trigger_mode))

    def lead(self, listener: Callable[..., Any], name: str) -> None:
        """Let a click lead to the address of which the part `name` is what the element's data say.

        The browser does it by itself, so that of quick clicks the last one decides: a server's answers may
        come in another order.
        """
        self._leads.append((listener, name))

    def wire(self, demo: gr.Blocks, walkthrough: gr.Walkthrough) -> None:
        """Connect everything; to be called once, inside of `demo`, when all is built."""
        address = self.address
        # Held by the browser, not by the server: what it says and what the browser shows arrive together.
        sent = gr.Textbox(visible="hidden", elem_id="sent")
        timer = gr.Timer(LIVE_SECONDS)
        self.follow(walkthrough, lambda page: gr.update(selected=STEPS.index(page.view.step)))
        self.follow(timer, lambda page: gr.update(value=LIVE_SECONDS if _is_live(page) else IDLE_SECONDS))
        outputs = [*(panel.component for panel in self._panels), sent]
        fields = [field.component for field in self._form]

        def restore(request: gr.Request) -> tuple[Any, ...]:
            page = self.page(str(request.query_params))
            return str(request.query_params), *(field.update(page) for field in self._form)

        def refresh(at: str, digests: str) -> Any:
            return self._changes(self.page(at), digests)

        show = {"fn": refresh, "inputs": [address, sent], "outputs": outputs, **QUIET}
        demo.load(restore, None, [address, *fields], **QUIET).then(**show)
        timer.tick(**show, trigger_mode="once")
        for link in self._links:
            shown = {"show_progress": "full", "show_progress_on": link.busy} if link.busy is not None else {}
            link.listener(
                self._handler(link.action, link.fills),
                [address, *link.inputs],
                [address, *link.outputs, *(field.component for field in self._filled(link.fills))],
                trigger_mode=link.trigger_mode,
                **{**QUIET, "queue": True, **shown},
            ).success(**show)
        for listener, name in self._leads:
            lead = _LEAD_SCRIPT.replace("NAME", json.dumps(name))
            listener(None, address, address, js=lead, trigger_mode="multiple", **QUIET).success(
                **show, trigger_mode="always_last"
            )
        self._wire_consequences()

    def _wire_consequences(self) -> None:
        def describe(address: str, *values: Any) -> list[Any]:
            page, form = self.page(address), self._read(values)
            return [value for each in self._consequences for value in each.describe(page, form)]

        # All in one: where two functions follow one event with "always_last", each that ends runs the other
        # once more, for ever (Gradio 6.31 repeats the event, not the function).
        gr.on(
            [component.change for component in (self.address, *self._news, *self._inputs)],
            describe,
            [self.address, *self._inputs],
            [component for each in self._consequences for component in each.components],
            trigger_mode="always_last",
            **QUIET,
        )

    def _filled(self, fills: str) -> list[_Panel]:
        """The fields that an action may fill anew."""
        return [field for field in self._form if fills == "form" or (fills and field.follows_size)]

    def _handler(self, action: Action, fills: str = "") -> Callable[..., Any]:
        """The function that Gradio calls for an action; it looks at the types of its parameters."""
        wants_progress = "progress" in inspect.signature(action).parameters

        def handle(address: str, event: gr.EventData, *values: Any) -> Any:
            return self._run(action, fills, address, event, values)

        def handle_slowly(address: str, event: gr.EventData, *values: Any, progress=gr.Progress()) -> Any:  # noqa: B008
            return self._run(action, fills, address, event, values, progress=progress)

        return handle_slowly if wants_progress else handle

    def _run(
        self,
        action: Action,
        fills: str,
        address: str,
        event: gr.EventData,
        values: Sequence[Any],
        **extra: Any,
    ) -> Any:
        page = self.page(address)
        clicked = event._data if isinstance(event._data, dict) else {}
        try:
            result = action(page, clicked, *values, **extra)
        except ValueError as error:
            # Gradio takes messages for HTML, and drops what looks like a tag.
            message = html.escape(str(error), quote=False)
            raise gr.Error(message, duration=ERROR_SECONDS, print_exception=False) from None
        view, *outputs = (result,) if isinstance(result, View) else result
        is_elsewhere = (view.run_id, view.subject_id) != (page.view.run_id, page.view.subject_id)
        is_resized = _size_choice(view) != _size_choice(page.view)
        there = self.page(view.address) if fills else page
        is_stale = is_resized if fills == "sizes" else is_elsewhere
        outputs += [panel.update(there) if is_stale else gr.skip() for panel in self._filled(fills)]
        return (view.address, *outputs) if outputs else view.address

    def _changes(self, page: Page, digests: str) -> Any:
        """Updates for the panels that differ from what the browser was sent.

        Args:
            digests: of what it was sent, a word for each panel.

        Returns:
            An update for each panel, and the new digests; a single skip where nothing differs.
        """
        updates = [panel.update(page) for panel in self._panels]
        new = [hashlib.sha256(repr(update).encode()).hexdigest()[:12] for update in updates]
        old = digests.split()
        if new == old:
            return gr.skip()
        if len(old) == len(new):
            updates = [
                gr.skip() if a == b else update for update, a, b in zip(updates, old, new, strict=True)
            ]
        return *updates, " ".join(new)


def _size_choice(view: View) -> tuple[str, str, int | None]:
    """What a view says of the size of the training pictures."""
    return view.preset, view.model, view.resolution


def _is_live(page: Page) -> bool:
    newest = [jobs[0] for jobs in page.all_jobs.values()]
    return any(not run.status.is_final for run in page.runs) or any(
        not page.status(job).is_final for job in newest
    )
