// Package httpx is what every HTTP handler of keytrail shares: one error shape, the
// one place where a [domain.Code] becomes a status, request ids, body limits, strict
// JSON, panic recovery, and servers with every timeout set.
//
// It knows nothing of keys or audits, and it decides nothing: who may do what is the
// domain's to say.
//
// Strictness is a choice. JSON bodies may name no field twice and no field that we do
// not know: a misspelt "expires_at" that was ignored would leave a key that never
// ends. IBM ignores such fields; callers who send them get a 400 that names the field.
package httpx
