// Package clickhouse runs the real ClickHouse engine (libchdb) beside the
// program: in a child process of the same binary, behind ClickHouse's HTTP
// interface on a unix socket, so that the official client drives it like any
// server.
//
// The child is supervised: when it dies or hangs it is started again, with a
// growing pause; until then its socket refuses connections. It ends itself when
// its parent is gone. What it acknowledged is in the data folder; what was under
// way when it died is for the caller to repeat or count.
//
// The child is confined. The engine has no users, and its table functions can
// read any file and call any address, so the child may read the library and the
// system's own libraries, write its data folder, and nothing else: no other
// file, no socket, no program. Where the kernel cannot do this, Start refuses
// unless it is told to go without.
//
// It is no ClickHouse server: no native protocol, users, sessions, compression,
// query parameters, replication.
package clickhouse
