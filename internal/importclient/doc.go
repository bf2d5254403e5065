// Package importclient sends audit logs of other systems to a keytrail server: it finds
// the files, takes their records out of whatever envelope holds them, and uploads them
// in batches that may be sent again. It decides nothing about the records and keeps
// none of them: the server knows which it has, so an import that broke off is simply
// run again.
//
// A batch is named by the SHA-256 of its bytes. While the server does not answer, or
// says that it is busy, the same bytes go out again under the same name.
package importclient
