// Package eventlog is keytrail's event log: the one place that imports the
// EventStoreDB client, and the same code whether a cluster or the embedded
// store of internal/embedded/eventstore answers.
//
// It gives four things. [Log] appends with an exact expected revision, reads
// streams and follows the log by stream prefix. [Propose] and [Decode] are the
// transport of the domain's codec. [Publisher] and [Subscriber] are watermill's
// interfaces over the log. Errors are a small tree of sentinels and one typed
// conflict, [WrongRevision].
//
// It refuses an append that expects just any revision: the idempotence of such
// an append is best effort, and an audit log that holds a fact twice is wrong.
package eventlog
