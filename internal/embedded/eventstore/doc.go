// Package eventstore is an event store inside the process: it speaks
// EventStoreDB's gRPC protocol (Streams, ServerFeatures, Gossip) to the
// unmodified client and keeps the log in one SQLite file.
//
// It exists so that one code path serves a laptop and a cluster. What it answers
// is what EventStoreDB answers, down to the traps: positions have gaps, a wrong
// expected revision is a response and not an error, a repeated append is the same
// success, metadata hides events at read. An append is acknowledged only when it
// is on disk.
//
// It refuses what keytrail does not need: persistent subscriptions, projections and
// users belong to EventStoreDB. It serves one process over a unix socket in a folder
// that only its owner can enter; or an address, with a certificate and a file of users,
// or without both where nobody else can reach it.
package eventstore
