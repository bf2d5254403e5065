// Package query is the read side: search over the activity records, exports, a key's
// timeline, usage analytics, findings, and the state of the projections, as handlers
// of gin.
//
// Every answer is of one position of the log and says which. A page's cursor pins
// that position, so that later pages show only what the first could. Every read is
// scoped to the accounts that the caller may read, or to one of them; another
// account's things do not exist.
//
// No SQL comes from outside: parameters become arguments of the query builder.
// Parameters are declared once, as struct tags that both the binder and the API's
// description read, and an unknown, repeated or out-of-bounds one is refused by name.
//
// The package writes nothing. That an export is recorded in the log is the work of
// the [AccessRecorder] that it is given.
package query
