// Package cloudtrail reads the audit log of AWS: it finds the records in whatever
// envelope they come and says of each one use and the facts about keys that it
// states. It keeps nothing, asks nobody and never drops a record in silence: what
// it cannot read is an error with the record's ordinal.
//
// # What becomes of a record
//
//	id           eventID; without one, derived from the record's bytes
//	time         eventTime, or @timestamp
//	account      recipientAccountId, else userIdentity.accountId, else the
//	             parser's default; masked or malformed numbers count as absent and
//	             stay in the label recipient_account_id
//	key id       userIdentity.accessKeyId; a masked one counts as absent and stays
//	             in the label access_key_id
//	iam_id       userIdentity.arn, else principalId, else invokedBy
//	action       first label of eventSource, a colon, eventName
//	access       readOnly, else by the verb of eventName
//	outcome      failure with an errorCode or a refused console sign-in
//	status       200; 403 denied; 401 bad credentials; 429 throttled; 503 and 500
//	             for faults of AWS; 400 for every other error
//	source       sourceIPAddress as given, be it an address or not
//	user agent   userAgent without the brackets of S3
//	target       the ARN of resources[0], else the parameter that names it
//
// The labels are the constants Label…. Values of secrets (passwords, secret keys,
// session tokens) are replaced by "[removed]". Any text over [LabelBytesMax] is replaced
// by {"oversize":true,"bytes":n,"sha256":"…"}.
package cloudtrail
