"""From a configuration to channels that are ready, once, before the first message: loaded, checked, compiled.

Errors are collected over all files, so that one `handoff check` shows all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Final, TypeVar

from engine.access.copies import NO_RESTRICTIONS, TPO, Copies, Terms
from engine.access.roles import Policy, load_policy
from engine.care.adt.event import Meaning, load_events
from engine.care.appointments import load_appointments
from engine.care.calendar import BusinessCalendar
from engine.care.dispositions import load_dispositions
from engine.care.medications.rules import load_formulary
from engine.care.oncall import Rosters
from engine.care.protocol import CLASSES, Protocol, load_protocol
from engine.care.rosters import OnCallSpec, load_oncall
from engine.care.texts.rules import TextRules, load_texts
from engine.domain.delivery import Operation
from engine.errors import Problem, SettingsError
from engine.hl7v2.message import Message
from engine.hl7v2.path import Path
from engine.mapping.apply import Mapping as FieldMapping
from engine.mapping.compile import compile_mapping
from engine.mapping.expression import Filter, FilterError, Literal, compile_filter
from engine.mapping.tables import Tables, load_tables
from engine.outline import ROLES
from engine.pipeline.channel import CompiledChannel, CompiledConfiguration, Key, Planner, RuleFiles
from engine.pipeline.messages import TARGETS
from engine.pipeline.siu.reading import CODE as SIU
from engine.pipeline.zones import Zones
from engine.privacy.rules import PrivacyRules, load_privacy
from engine.risk.inputs import load_input_tables
from engine.risk.registry import load_models
from engine.settings import Channel, Configuration, DestinationBase
from engine.yamlfile import Document, did_you_mean
from engine.yamlmodel import validate

T = TypeVar("T")


class _Collector:
    """Runs loaders and keeps their problems, so that one wrong file does not hide the next."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def __call__(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except SettingsError as error:
            self.problems.extend(error.problems)
            return None


def compile_configuration(configuration: Configuration, key: Key) -> CompiledConfiguration:
    """Raises SettingsError with the problems of all files."""
    attempt = _Collector()
    documents = _documents(configuration, attempt)

    def read(name: str, load: Callable[[Document], T]) -> T | None:
        document = documents.get(name)
        if document is None:
            file = f"{configuration.site.mappings}/{name}"
            attempt.problems.append(Problem(file, 1, 1, "", "this file is missing"))
            return None
        return attempt(lambda: load(document))

    tables = load_tables((d for name, d in documents.items() if name.startswith("tables/")), attempt.problems)
    models = load_models(_folder(documents, "risk"), attempt.problems)
    protocols = {
        name: protocol
        for name, document in _folder(documents, "protocols").items()
        if (protocol := attempt(lambda document=document: load_protocol(document))) is not None  # type: ignore[misc]
    }
    appointments = load_appointments(_folder(documents, "appointments"), attempt.problems)
    events = read("care/adt-events.yaml", load_events)
    dispositions = read("care/dispositions.yaml", load_dispositions)
    inputs = read("care/risk-inputs.yaml", load_input_tables)
    policies, privacy = _policies(configuration, documents, attempt), _privacy(configuration, documents, attempt)
    rosters, rosters_read = _rosters(configuration, _folder(documents, "oncall").values(), attempt)
    texts = _texts(configuration, documents, attempt)
    medications = load_formulary(_folder(documents, "medications"), attempt.problems)
    calendar = BusinessCalendar(configuration.site.calendar)
    attempt.problems += _site_problems(configuration, calendar)
    broken_tables = _broken_tables(configuration, documents, tables)
    missing = partial(_missing, configuration)
    planners = _planners(configuration, protocols)
    channels: dict[str, CompiledChannel] = {}
    mappings: dict[tuple[str, str], FieldMapping | None] = {}
    for name, settings in configuration.channels.items():
        document = configuration.channel_documents[name]
        zones = Zones.of(settings.timezone)
        compile_fields = partial(
            compile_mapping, tables=tables, zone=zones.default, targets=TARGETS, broken_tables=broken_tables
        )
        compiled = attempt(lambda: _filter(settings, document))  # noqa: B023  # called at once
        field_file = documents.get(f"fields/{settings.mapping}.yaml")
        mapping_key = (settings.mapping, settings.timezone.default)
        if field_file is None:
            attempt.problems.append(document.problem(("mapping",), missing("fields", settings.mapping)))
        elif mapping_key not in mappings:
            mappings[mapping_key] = attempt(partial(compile_fields, field_file))
        for index, model in enumerate(settings.risk):
            if model not in models:
                attempt.problems.append(document.problem(("risk", index), missing("risk", model)))
        if settings.protocol is not None and settings.protocol not in protocols:
            attempt.problems.append(document.problem(("protocol",), missing("protocols", settings.protocol)))
        if settings.appointments not in appointments and _takes_appointments(settings):
            attempt.problems.append(document.problem(("appointments",), missing("appointments", settings.appointments)))
        mapping = mappings.get(mapping_key)
        if attempt.problems or mapping is None or events is None or dispositions is None or inputs is None:
            continue
        channels[name] = CompiledChannel(
            settings=settings,
            version=configuration.snapshot.version,
            zones=zones,
            filter=compiled,
            mapping=mapping,
            models=tuple(models[model] for model in settings.risk),
            planner=_planner(settings, protocols),
            planners=planners,
            models_known=models,
            events=events,
            appointments=appointments.get(settings.appointments),
            dispositions=dispositions,
            inputs=inputs,
            calendar=calendar,
            key=key,
            rosters=rosters,
            texts=texts,
            copies=copies_of(configuration, policies),
            terms={name: terms_of(name, one) for name, one in configuration.site.destinations.items()},
            text_senders=frozenset(name for name, one in configuration.site.destinations.items() if one.sends_texts),
        )
    for document in _folder(documents, "protocols").values() if rosters_read else ():
        attempt.problems += _page_problems(document, rosters)
    attempt.problems += (
        *_text_problems(documents, protocols, texts, rosters),
        *_class_problems(configuration, documents, tables, protocols),
    )
    if attempt.problems or events is None or dispositions is None or inputs is None:
        raise SettingsError(tuple(dict.fromkeys(attempt.problems)))
    return CompiledConfiguration(
        version=configuration.snapshot.version,
        site=configuration.site,
        source=configuration,
        channels=channels,
        copies=copies_of(configuration, policies),
        rules=RuleFiles(
            tables=tables,
            models=models,
            protocols=protocols,
            events=events,
            appointments=appointments,
            dispositions=dispositions,
            inputs=inputs,
            calendar=calendar,
            rosters=rosters,
            policies=policies,
            privacy=privacy,
            texts=texts,
            medications=medications,
        ),
    )


def _policies(
    configuration: Configuration, documents: Mapping[str, Document], attempt: _Collector
) -> dict[str, Policy]:
    """Who may see what, by file. One that config.yaml names has to be there."""
    access = configuration.site.access
    found = {
        document.file: policy
        for document in _folder(documents, "access").values()
        if (policy := attempt(partial(load_policy, document))) is not None
    }
    if access is not None and os.path.normpath(access.roles) not in configuration.snapshot.files:
        folder = f"{configuration.site.mappings}/access/"
        near = did_you_mean(access.roles, [file for file in configuration.snapshot.files if file.startswith(folder)])
        site = configuration.snapshot.document(configuration.snapshot.site_file)
        place = ("access", "roles") if ("access", "roles") in site.places else ("access",)
        attempt.problems.append(site.problem(place, f"there is no {access.roles} below {folder}{near}"))
    return found


def copies_of(configuration: Configuration, policies: Mapping[str, Policy]) -> Copies:
    """What of a restricted record may leave, by the file of roles that is in force, also where nobody logs in."""
    access = configuration.site.access
    policy = policies.get(os.path.normpath(access.roles if access is not None else ROLES))
    return NO_RESTRICTIONS if policy is None else Copies.of(policy)


def unfilled(compiled: CompiledConfiguration) -> Iterator[Problem]:
    """What the file of roles waits for, where it matters: there are accounts, or a destination says what it gets."""
    site, snapshot = compiled.site, compiled.source.snapshot
    said = {"restricted", "part2", "event_notices"}
    if site.access is None and not any(said & one.model_fields_set for one in site.destinations.values()):
        return
    policy = compiled.rules.policies.get(os.path.normpath(site.access.roles if site.access is not None else ROLES))
    if policy is None:
        return
    for place, what in policy.unfilled:
        yield snapshot.document(policy.file).warning(tuple(place.split(".")), f"is not filled in: {what}")


def terms_of(name: str, settings: DestinationBase) -> Terms:
    return Terms(
        name=name,
        restricted=settings.restricted,
        part2=settings.part2,
        event_notices=settings.event_notices,
        test_data=settings.test_data,
        tpo=settings.disclosure is not None and settings.disclosure.as_ == TPO,
    )


def _privacy(configuration: Configuration, documents: Mapping[str, Document], attempt: _Collector) -> PrivacyRules:
    rules = load_privacy(_folder(documents, "privacy"), attempt.problems)
    attempt.problems += _disclosure_problems(configuration, rules)
    return rules


def _disclosure_problems(configuration: Configuration, privacy: PrivacyRules) -> Iterator[Problem]:
    """Destinations that are marked as what the file of disclosures does not know, or without what it has to say."""
    site = configuration.snapshot.document(configuration.snapshot.site_file)
    for name, destination in configuration.site.destinations.items():
        said, rules = destination.disclosure, privacy.disclosures
        if said is None:
            continue
        place: tuple[str | int, ...] = ("destinations", name, "disclosure", "as")
        if rules is None:
            yield site.problem(place, "there is no privacy/disclosures.yaml below the mappings")
        elif said.as_ not in rules.grounds:
            near = did_you_mean(said.as_, rules.grounds)
            yield site.problem(place, f"there is no ground {said.as_}{near}; there are {', '.join(rules.grounds)}")
        elif rules.grounds[said.as_].accounted and said.purpose is None:
            text = "is in what a patient is told of, so say the `purpose`, as the patient is to read it"
            yield site.problem(place, text)


def compile_rosters(configuration: Configuration) -> Rosters:
    """Who is on call, and nothing else of the configuration. Raises SettingsError."""
    attempt = _Collector()
    rosters, _ = _rosters(configuration, _folder(_documents(configuration, attempt), "oncall").values(), attempt)
    if attempt.problems:
        raise SettingsError(tuple(attempt.problems))
    return rosters


def _rosters(configuration: Configuration, documents: Iterable[Document], attempt: _Collector) -> tuple[Rosters, bool]:
    """Who is on call, from all files of the folder, and whether all of them could be read."""
    read: list[tuple[Document, OnCallSpec]] = []
    whole = True
    for document in documents:
        spec = attempt(partial(validate, document, OnCallSpec))
        whole = whole and spec is not None
        read += [(document, spec)] if spec is not None else []
    destinations = configuration.site.destinations
    problems: list[Problem] = []
    rosters = load_oncall(
        read,
        takers=[name for name, one in destinations.items() if Operation.NOTIFY.what in one.takes],
        ends=[name for name, one in destinations.items() if Operation.NOTIFY_END.what in one.takes],
        destinations=list(destinations),
        zone=configuration.site.calendar.timezone,
        problems=problems,
    )
    if whole:  # else much of what is missing stands in a file that can't be read
        attempt.problems += problems
    return rosters, whole


def _texts(configuration: Configuration, documents: Mapping[str, Document], attempt: _Collector) -> TextRules:
    site = configuration.snapshot.document(configuration.snapshot.site_file)
    return load_texts(_folder(documents, "texts"), configuration.site.texts, site, attempt.problems)


def _takes_appointments(settings: Channel) -> bool:
    """It has a map of its own, or takes messages that need one."""
    codes = {one.upper().partition("^")[0] for one in settings.accept.types}
    return "appointments" in settings.model_fields_set or SIU in codes


def _planner(settings: Channel, protocols: Mapping[str, Protocol]) -> Planner | None:
    protocol = protocols.get(settings.protocol) if settings.protocol is not None else None
    return Planner(protocol, settings.risk[0] if settings.risk else None) if protocol is not None else None


def _planners(configuration: Configuration, protocols: Mapping[str, Protocol]) -> dict[str, Planner]:
    planners: dict[str, Planner] = {}
    for settings in configuration.channels.values():
        if (planner := _planner(settings, protocols)) is not None:
            planners.setdefault(planner.protocol.name, planner)
    return planners


def _documents(configuration: Configuration, attempt: _Collector) -> dict[str, Document]:
    """All files below the mappings folder, by their path in it (`fields/adt.yaml`)."""
    snapshot = configuration.snapshot
    found: dict[str, Document] = {}
    folder = f"{configuration.site.mappings}/"
    for file in snapshot.below(folder):
        document = attempt(lambda: snapshot.document(file))  # noqa: B023  # called at once
        if document is not None:
            found[file.removeprefix(folder)] = document
    return found


def _folder(documents: Mapping[str, Document], folder: str) -> dict[str, Document]:
    """The files of one folder by their stem (`lace`)."""
    prefix = f"{folder}/"
    return {
        name.removeprefix(prefix).removesuffix(".yaml"): document
        for name, document in documents.items()
        if name.startswith(prefix)
    }


def _page_problems(document: Document, rosters: Rosters) -> Iterator[Problem]:
    """Ladders that a protocol names and no file has: nobody would be paged."""
    known = {*rosters.ladders, *rosters.left_out}
    for path in document.places:
        if path[:1] != ("plans",) or path[-1] != "page":
            continue
        name = document.value
        for part in path:
            name = name[part]
        if isinstance(name, str) and name not in known:
            near = did_you_mean(name, known)
            yield document.problem(path, f"there is no such ladder in mappings/oncall/{near}: nobody would be paged")


def _text_problems(
    documents: Mapping[str, Document], protocols: Mapping[str, Protocol], texts: TextRules, rosters: Rosters
) -> Iterator[Problem]:
    """Series that a protocol names and no file has, and alerts of a series that its protocol knows nothing of."""
    if not texts.whole:  # else much of what is missing stands in a file that can't be read
        return
    if any(protocol.texts for protocol in protocols.values()):
        yield from _reply_problems(documents, protocols, texts, rosters)
    for stem, document in _folder(documents, "protocols").items():
        protocol = protocols.get(stem)
        for band, name in protocol.texts.items() if protocol is not None else ():
            series = texts.series.get(name)
            if protocol is None or series is None:
                near = did_you_mean(name, texts.series)
                place = ("texts", "home_plan", str(band))
                yield document.problem(place, f"there is no such series in mappings/texts/{near}: nobody gets a text")
                continue
            for step, alert in series.alerts:
                where = f"{name}, text {step}"
                if alert.kind not in protocol.kinds:
                    near = did_you_mean(alert.kind, protocol.kinds)
                    text = f"{where} alerts by a task {alert.kind}, which is none of the kinds of this protocol{near}"
                    yield document.problem(("texts", "home_plan", str(band)), text)
                if alert.page is not None and alert.page not in {*rosters.ladders, *rosters.left_out}:
                    text = f"{where} pages the ladder {alert.page}, which is not in mappings/oncall/"
                    yield document.problem(("texts", "home_plan", str(band)), text)


def _reply_problems(
    documents: Mapping[str, Document], protocols: Mapping[str, Protocol], texts: TextRules, rosters: Rosters
) -> Iterator[Problem]:
    """Tasks about replies of kinds that no protocol has, or that page a ladder which is not there."""
    document = next((one for one in documents.values() if texts.kinds.get(one.file) == "service"), None)
    kinds = {kind for protocol in protocols.values() for kind in protocol.kinds}
    for name, then in texts.service.tasks.items() if document is not None else ():
        if document is None or then.alert is None:
            continue
        if then.alert.kind not in kinds:
            near = did_you_mean(then.alert.kind, kinds)
            yield document.problem(("tasks", name, "kind"), f"is none of the kinds of a protocol{near}")
        if then.alert.page is not None and then.alert.page not in {*rosters.ladders, *rosters.left_out}:
            yield document.problem(("tasks", name, "page"), "there is no such ladder in mappings/oncall/")


def _class_problems(
    configuration: Configuration,
    documents: Mapping[str, Document],
    tables: Tables,
    protocols: Mapping[str, Protocol],
) -> Iterator[Problem]:
    """Patient classes that tables or defaults lead to and no rule knows: their discharges would get no plan."""
    known = CLASSES.union(*(protocol.known_classes for protocol in protocols.values()))
    for name in sorted({channel.mapping for channel in configuration.channels.values()}):
        document = documents.get(f"fields/{name}.yaml")
        fields = document.value if document is not None else None
        rule = fields.get("encounter.class") if isinstance(fields, dict) else None
        if document is None or not isinstance(rule, dict):
            continue
        default = rule.get("default")
        if isinstance(default, str) and default not in known:
            yield document.problem(("encounter.class", "default"), _unknown_class(default, known))
        table = tables.get(str(rule.get("table")))
        if table is None:
            continue
        of_table = next(one for one in documents.values() if one.file == table.file)
        for code, value in table.values.items():
            if isinstance(value, str) and value not in known:
                yield of_table.problem(("values", code), _unknown_class(value, known))
        if isinstance(table.unknown, str) and table.unknown not in known:
            yield of_table.problem(("unknown", "value"), _unknown_class(table.unknown, known))


def _unknown_class(name: str, known: Collection[str]) -> str:
    return f"class {name} is in no protocol, and not among {' '.join(sorted(known))}: its discharges would get no plan"


def _site_problems(configuration: Configuration, calendar: BusinessCalendar) -> Iterator[Problem]:
    site = configuration.snapshot.document(configuration.snapshot.site_file)
    if (wrong := calendar.check()) is not None:
        yield site.problem(("calendar", "holidays"), wrong)
    if not configuration.channels:
        folder = configuration.site.channels
        text = f"there is no channel, so no message can come: put a file into {folder}/ (its name ends in .yaml)"
        yield site.problem(("channels",), text)


def _missing(configuration: Configuration, folder: str, name: str) -> str:
    """Why a file that a channel names can't be used."""
    root = f"{configuration.site.mappings}/{folder}/"
    files = [file for file in configuration.snapshot.files if file.startswith(root)]
    if f"{root}{name}.yaml" in files:
        return f"{root}{name}.yaml has problems, see there"
    known = [file.removeprefix(root).removesuffix(".yaml") for file in files]
    return f"there is no {root}{name}.yaml{did_you_mean(name, known)}"


def _broken_tables(configuration: Configuration, documents: Mapping[str, Document], tables: Tables) -> set[str]:
    """Names of tables whose files have problems: what they call themselves, or what their files are called."""
    folder = f"{configuration.site.mappings}/"
    files = {name.removeprefix(folder) for name in configuration.snapshot.files if name.startswith(f"{folder}tables/")}
    stems = {name.removeprefix("tables/").removesuffix(".yaml") for name in files}
    values = [document.value for name, document in documents.items() if name.startswith("tables/")]
    named = {str(value.get("name")) for value in values if isinstance(value, dict)}
    return (stems | named) - set(tables)


def _filter(settings: Channel, document: Document) -> Filter | None:
    if settings.filter is None:
        return None
    try:
        return compile_filter(settings.filter)
    except FilterError as error:
        raise SettingsError((_filter_problem(document, error),)) from None


def _filter_problem(document: Document, error: FilterError) -> Problem:
    return document.problem(("filter",), f"{error.text} ({_at(error)})\n{error.pointed}")


def beyond_the_standard(compiled: CompiledConfiguration) -> Iterator[Problem]:
    """Paths of filters and mappings that no message of the standard has a value for."""
    for name, channel in compiled.channels.items():
        document = compiled.source.channel_documents[name]
        for doubt in channel.filter.doubts if channel.filter is not None else ():
            yield _filter_problem(document, doubt)
        yield from channel.mapping.doubts


def never_equal(compiled: CompiledConfiguration) -> Iterator[Problem]:
    """Texts in filters that no message which is accepted here is likely to have: they leave everybody out."""
    for name, channel in compiled.channels.items():
        document = compiled.source.channel_documents[name]
        for literal in channel.filter.literals if channel.filter is not None else ():
            if (said := _unlikely(compiled, channel, literal)) is not None:
                error = literal.said(f"'{literal.text}' is not likely in {literal.path.text}: {said}")
                yield document.warning(("filter",), f"{error.text} ({_at(error)})\n{error.pointed}")


_NEEDED: Final[Mapping[Meaning, str]] = {
    Meaning.DISCHARGE: "no discharge is heard of, so nobody gets a plan",
    Meaning.CANCEL_DISCHARGE: "no cancelled discharge is heard of, so its tasks and calls stay",
    Meaning.CANCEL_ADMIT: "no cancelled admission is heard of, so its stay and scores stay",
    Meaning.MERGE: "no merge is heard of, so one patient has two charts and may have two plans",
}
"""Without which a plan is not made, or not taken back -> what comes of a filter that leaves all of it out."""


def left_out(compiled: CompiledConfiguration) -> Iterator[Problem]:
    """Filters of channels with a protocol that leave out every event which the plans can't do without."""
    for name, channel in compiled.channels.items():
        chosen, settings = channel.filter, channel.settings
        if chosen is None or settings.protocol is None:
            continue
        document = compiled.source.channel_documents[name]
        for meaning, says in _NEEDED.items():
            events = [one for one in sorted(channel.events.that_mean(meaning)) if _accepts(settings.accept.types, one)]
            if events and not any(chosen.can_hold(_of_event(one), _is_of_event) for one in events):
                remedy = "take it in, or take `protocol` away where this feed is for something else"
                yield document.warning(("filter",), f"leaves out every {' and '.join(events)}: {says}; {remedy}")


def _accepts(types: Iterable[str], event: str) -> bool:
    patterns = (one.upper().partition("^") for one in types)
    return any(type_ in {"ADT", "*"} and (of or "*") in {event, "*"} for type_, _, of in patterns)


def _of_event(event: str) -> Message:
    return Message.parse(f"MSH|^~\\&|||||||ADT^{event}|1|P|2.5.1\rEVN|{event}\r".encode())


def _is_of_event(path: Path) -> bool:
    """Whether all messages of an event have the same there. EVN-1 repeats it."""
    place = path.segment, path.field, path.component, path.subcomponent
    plain = path.index == 1 and path.repetition == 1 and not path.conditions
    return plain and place in {("MSH", 9, 1, 1), ("MSH", 9, 2, 1), ("EVN", 1, 1, 1)}


_CODE: Final = re.compile(r"[A-Z][A-Z0-9]{2}")


def _unlikely(compiled: CompiledConfiguration, channel: CompiledChannel, literal: Literal) -> str | None:
    """Why a text is hardly ever there."""
    path, text, accept = literal.path, literal.text, channel.settings.accept
    place = path.segment, path.field, path.component, path.subcomponent
    if not text:
        return None
    match place:
        case ("MSH", 9, 1, 1) if not _CODE.fullmatch(text):
            return "it is a message type, like ADT"
        case ("MSH", 9, 1, 1) if not any(one.upper().split("^")[0] in {text, "*"} for one in accept.types):
            return "`accept.types` takes none of these"
        case ("MSH", 9, 2, 1) | ("EVN", 1, 1, 1) if not _CODE.fullmatch(text):
            return "it is an event, like A01"
        case ("MSH", 11, 1, 1) if text not in accept.processing_ids:
            return "`accept.processing_ids` takes none of these"
        case ("MSH", 12, 1, 1) if text not in accept.versions:
            return "`accept.versions` takes none of these"
        case ("PV1", 2, 1, 1):
            known = _classes_sent(compiled, channel)
            return None if text in known else f"no rule knows this class{did_you_mean(text.upper(), sorted(known))}"
    return "& separates subcomponents: compare each with a text of its own" if "&" in text else None


def _classes_sent(compiled: CompiledConfiguration, channel: CompiledChannel) -> set[str]:
    """Codes of PV1-2 that mean something: those of the standard, of the protocols, and of the mapping's table."""
    source, rules = compiled.source, compiled.rules
    mapping = source.snapshot.document(f"{source.site.mappings}/fields/{channel.settings.mapping}.yaml").value
    rule = mapping.get("encounter.class") if isinstance(mapping, dict) else None
    table = rules.tables.get(str(rule.get("table"))) if isinstance(rule, dict) else None
    known = CLASSES.union(*(protocol.known_classes for protocol in rules.protocols.values()))
    return {*known, *(table.values if table is not None else ())}


def _at(error: FilterError) -> str:
    """Where in the filter: a place in the file would be wrong as soon as its text is quoted or folded."""
    line = f"line {error.line}, " if error.line > 1 else ""
    return f"{line}character {error.column} of the filter"
