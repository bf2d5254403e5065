// Package ingest is the write side: everything that puts facts about keys into the log.
//
// Commands go one way: authenticate, authorise and decide by the rules of package
// domain on the fold of the stream, append with the exact revision that was read, and
// only then answer. A 2xx means that the fact is durable; its position is in the
// answer. A command that is refused is recorded too, before the answer. Uses of keys
// come in batches, by upload, import and sign-in.
//
// It refuses to decide: no rule about keys stands here. It reads no table either;
// where a list or a count is wanted, it declares an interface, and cmd wires the read
// side to it.
package ingest
