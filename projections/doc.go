// Package projections turns the event log into the analytics tables.
//
// A projection is a pure function from one recorded event to rows; each has its
// file ([Tables] lists them). The [Runner] around them owns everything that can
// fail: it reads the log in order into blocks, plans a block in the ledger, inserts
// it table by table, and only then plans the next. A block planned and not finished
// is made again between the same bounds, counted, and mended. docs/exactness.md is
// the argument that nothing is lost or doubled; this package is built to it.
//
// Beside the runner there are the computed tables (violations, rollups by
// [Roller]), the [Tracker] that tells readers how far the tables are, and [Verify],
// which makes every row again from the log and compares.
//
// Tables are disposable: nothing here is a source of truth, and nothing here
// answers a query of a user.
package projections
