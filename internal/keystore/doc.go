// Package keystore holds the few secrets of an installation: the pepper under which
// API keys are fingerprinted, the key that signs tokens, and the installation's id.
// They live in one file, sealed under a master key, apart from the log, and are
// backed up apart. All nodes of an installation share it; what is a node's own, its
// name, is in the node's data folder and no secret: see [NodeID]. No secret of it or of a caller ever reaches the log: what the log
// holds of an API key is [Store.Fingerprint].
//
// # The file
//
// DIR/keystore is JSON: "format" ("keytrail-keystore-1"), "salt" and "nonce" (base64),
// and "sealed", the AES-256-GCM ciphertext of the content. The key is
// HKDF-SHA256(master key, salt, format); format is also the associated data. It is
// written whole to a temporary file, synced, renamed, and the folder synced, so a crash
// leaves the old file or the new one. The master key is whatever stands in the file
// that --master-key-file names (at least 32 bytes) or, without one, in DIR/master.key,
// which is made at first start: convenient, and no protection against who reads DIR.
//
// # Kept values
//
// The few key values that may be read again are kept in DIR/values, one file each, which
// nodes share as they share DIR/keystore. A file is named by the first 16 bytes of SHA-256
// of the key's id, in hex. It is JSON: "format" ("keytrail-value-1"), "nonce", and "sealed",
// AES-256-GCM; format and id are the associated data. The key is HKDF-SHA256 of HKDF-SHA256
// of the pepper, each with the format's name: who unseals DIR/keystore can read the values,
// nobody else. Files are written and removed durably.
//
// # Key values
//
// A key that keytrail makes is "kt_", 43 base62 digits (32 random bytes) and 6 base62
// digits (their CRC-32/IEEE, over prefix and body): 52 characters that match
// kt_[0-9A-Za-z]{49}. A scanner that finds such a text checks the last six digits and
// knows, without asking anybody, whether it is a key: a random text passes once in
// four thousand million. See [NewKeyValue] and [IsKeyValue].
package keystore
