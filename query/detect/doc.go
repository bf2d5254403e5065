// Package detect says which use of keys looks wrong. Its rules are data: YAML files
// with a filter, a shape in time and their own tests ([Load], [Rule]); operators add
// and override them.
//
// # What a rule finds
//
// A finding is a function of the set of records by event time, whatever their order of
// arrival and however the log was cut into blocks. The records of one group (an
// account, a key and the identity it speaks for), filtered and in the order (time,
// position, index), are looked at thus:
//
//   - A record is a trigger if one of the rule's windows that ends with it is met: the
//     records of the last W hold the threshold (of records for the shape count, of
//     distinct values for the shape distinct; for the shape each every record is one).
//   - Triggers form one case while each follows the last by at most the join time and
//     lies in the same span: spans are fixed stretches of UTC (a day, say), so that a
//     case that never ends becomes one finding a span and not one for ever.
//   - The evidence of a case is every record in a met window of one of its triggers.
//     These are exactly the records that lie in at least one stretch [t, t+W] that
//     meets the threshold.
//   - The id of the finding names the rule, its version, the dedupe key (group and
//     span) and the earliest record of the window that opened the case.
//
// Whether a record is a trigger depends on nothing later than it, so live evaluation,
// block by block, opens the findings that a backtest over the whole gives, id for id,
// as long as records arrive in the order of their times. A late record can only add
// triggers. It may reach back before the evidence that gave an id or join two cases;
// then the finding that is there keeps its id and is extended ([domain.Finding.Extend]),
// and one that was swallowed by it stays as it is. Records that were retracted (a
// violation that a late lifecycle fact explained) take nothing back either: what was
// found stays found, and triage closes it.
//
// # What it refuses
//
// The package writes nothing: the detector in ingest turns findings into events. Rules
// hold no SQL; their filters are compiled to the query builder's conditions and to a
// matcher in memory from one tree, so that both judge alike.
package detect
