// Package clickhouse is the one door to the analytics store: it opens
// clickhouse-go, keeps the schema, inserts blocks and runs reads.
//
// Every read goes through the query builder ([Select], [UnionAll]), which adds
// the account scope to each table it names: a table without a [Scope] is an
// error, and an empty scope sees nothing. Values travel as bound arguments only;
// the SQL text is made of this program's own constants, and those are checked.
//
// An insert is one block and one INSERT, so that a server which acknowledged it
// holds all of it, and [InsertOptions].Token makes a repeat of it harmless.
//
// The package does not retry, cache results, or know any table of ours. Whether
// the server is a cluster or the engine in the child process next door is
// decided by [Config] alone.
package clickhouse
