// Package usagebatch is the stored form of many uses: columns, compressed. It
// encodes and decodes bytes and knows nothing of where they are kept, who sent
// them or whether a use was seen before.
//
// The order of the uses is kept: position and index name a use for ever. Equal
// input gives equal bytes for one version of this package and of its zstd
// library; readers depend on the format alone.
//
// # Format, version 1
//
// All integers are unsigned LEB128 ("uvarint") unless said otherwise; "zigzag" is
// a signed integer folded into a uvarint as Protocol Buffers do.
//
//	byte 0      version, 1
//	uvarint     length of the body in bytes, at most 16 MiB
//	…           one zstd frame with checksum: the body
//
// The body:
//
//	uvarint     count of uses, at most 65,536
//	21 columns  in this order, each: uvarint length in bytes, then the bytes
//
//	 1 id           texts       12 source       dictionary
//	 2 time         times       13 user_agent   dictionary
//	 3 account      dictionary  14 region       dictionary
//	 4 key_id       dictionary  15 target       dictionary
//	 5 fingerprint  dictionary  16 request_id   texts
//	 6 iam_id       dictionary  17 latency_ms   integers
//	 7 action       dictionary  18 bytes        integers
//	 8 access       dictionary  19 country      dictionary
//	 9 outcome      dictionary  20 asn          integers
//	10 status       signed      21 labels       label sets
//	11 error_code   dictionary
//
// A column of length 0 means that every value in it is empty or zero; a column
// whose values are all empty or zero is always written so.
//
//	texts       per use a uvarint: 0 = a UUID in lower-case canonical form, else
//	            length + 1; then all payloads joined, 16 bytes for a UUID.
//	times       per use a zigzag uvarint: milliseconds since 1970 less those of
//	            the use before (of 0 for the first).
//	dictionary  uvarint n, n strings (uvarint length, bytes) in order of first
//	            appearance; then, if n > 1, per use the index of its string: one
//	            byte if n ≤ 256, else two bytes, little-endian.
//	integers    per use a uvarint.
//	signed      per use a zigzag uvarint.
//	label sets  uvarint n, n keys (uvarint length, bytes); uvarint n, n values
//	            likewise; uvarint n, n sets: uvarint pairs (1…64), then per pair
//	            the index of its key and of its value, keys in strictly ascending
//	            order of their bytes; then per use a uvarint: 0 = no labels, else
//	            set + 1.
//
// Nothing may follow a column's values, the last column or the frame.
package usagebatch
