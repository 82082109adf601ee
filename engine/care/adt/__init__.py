"""What ADT events do to charts.

Pure: charts in, new versions of charts out. The rules are those of HL7 v2.9.1 chapter 3 and of the event table in
`mappings/care/adt-events.yaml`. Two of them hold everywhere:

- An event older than what a chart already holds for a field never turns that field back. Each field carries the time
  of the event that last spoke of it; the status of an encounter is such a field.
- A patient is found by the identifier that the channel names as the key, and by nothing else. A second identifier in
  the message that belongs to somebody else is reported and left where it is.

A chart may be here without the stays that are over. A rule that looks at more stays than its own reads `Chart.closed`
as well, or says `chart.need_whole()` (decision 21). `tests/unit/pipeline/test_closing.py` finds one that forgets it.

| file | what it is about |
|---|---|
| `event.py` | an event in the engine's words, the table of trigger events |
| `says.py` | what each meaning of an event says of a stay, a row each |
| `patient.py` | whether the event speaks of a visit |
| `visit.py` | which encounter a message means |
| `stay.py` | the fields and times of that encounter |
| `status.py` | whether the stay is planned, going on or over, and which of two events came last |
| `merge.py` | two charts that are one patient |
| `moves.py` | stays that become another patient's, get another number, or go on in another class |
| `numbers.py` | what numbers of stays have become, from whom stays came and where they went |
| `places.py` | where a patient is after a cancelled transfer |
| `persons.py` | patients who are linked, persons who are deleted |

What messages of all codes have in common stands above: `care/patient.py` (whose a message is, what it says of the
person, its way through a chart) and `care/death.py` (whether the patient has died).
"""
