// Package simulator makes up an organisation for demonstrations and measurements: three
// accounts, their people and programs, a month of their keys' work, and four attacks. It
// speaks as AWS CloudTrail does, so that keys have been made, disabled and deleted in
// the past, and it drives a server over its HTTP API only.
//
// The same seed and end give the same records to the byte. What it makes up is no
// measure of detection: real logs are.
package simulator
