package cloudtrail

import (
	"bytes"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"example.com/keytrail/domain"
)

// facts returns what a record that succeeded states about keys.
func facts(r record, u domain.Use) []domain.ObserveKey {
	if u.Outcome != domain.OutcomeSuccess {
		return nil
	}
	switch r.EventSource {
	case "iam.amazonaws.com":
		return lifecycle(r, u)
	case "sts.amazonaws.com":
		return issued(r, u)
	}
	return nil
}

func lifecycle(r record, u domain.Use) []domain.ObserveKey {
	from := r.Request
	if r.EventName == "CreateAccessKey" {
		from = memberValue(r.Response, "accessKey")
	}
	f := domain.ObserveKey{
		SourceEvent: u.ID, Source: Source, Account: u.Account, At: u.Time,
		ID: domain.KeyID(member(from, "accessKeyId")), IAMID: owner(r, member(from, "userName")), Name: member(from, "userName"),
	}
	if !domain.ValidID(string(f.ID)) {
		return nil
	}
	switch inactive := member(from, "status") == "Inactive"; r.EventName {
	case "CreateAccessKey":
		f.Fact = domain.ObservedCreated
		if inactive {
			off := f
			off.Fact = domain.ObservedDisabled
			return []domain.ObserveKey{f, off}
		}
	case "UpdateAccessKey":
		switch {
		case inactive:
			f.Fact = domain.ObservedDisabled
		case member(from, "status") == "Active":
			f.Fact = domain.ObservedEnabled
		default:
			return nil
		}
	case "DeleteAccessKey":
		f.Fact = domain.ObservedDeleted
	default:
		return nil
	}
	return []domain.ObserveKey{f}
}

// owner returns the ARN of the user that a key belongs to: the caller's where the
// call names nobody or the caller.
func owner(r record, user string) domain.IAMID {
	arn := string(r.Identity.ARN)
	if user == "" || user == string(r.Identity.UserName) && strings.Contains(arn, ":user/") {
		return domain.IAMID(arn)
	}
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 {
		return domain.IAMID(user)
	}
	return domain.IAMID("arn:" + parts[1] + ":iam::" + parts[4] + ":user/" + user)
}

// issued returns the temporary key that a call to STS gave out.
func issued(r record, u domain.Use) []domain.ObserveKey {
	switch r.EventName {
	case "AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity", "AssumeRoot", "GetSessionToken", "GetFederationToken":
	default:
		return nil
	}
	credentials := memberValue(r.Response, "credentials")
	f := domain.ObserveKey{
		Fact: domain.ObservedIssued, SourceEvent: u.ID, Source: Source, Account: u.Account, At: u.Time,
		ID: domain.KeyID(member(credentials, "accessKeyId")),
	}
	if !domain.ValidID(string(f.ID)) {
		return nil
	}
	f.IAMID = domain.IAMID(member(memberValue(r.Response, "assumedRoleUser"), "arn"))
	if f.IAMID == "" {
		f.IAMID = domain.IAMID(member(memberValue(r.Response, "federatedUser"), "arn"))
	}
	if f.IAMID == "" && r.EventName == "GetSessionToken" {
		f.IAMID = u.IAMID
	}
	if f.Parent = string(u.KeyID); f.Parent == "" {
		f.Parent = string(u.IAMID)
	}
	f.Name = member(r.Request, "roleSessionName")
	if t, ok := expiry(member(credentials, "expiration")); ok {
		f.ExpiresAt = &t
	}
	return []domain.ObserveKey{f}
}

// firstUse returns the fact that the use's key was in use.
func firstUse(r record, u domain.Use) domain.ObserveKey {
	return domain.ObserveKey{
		Fact: domain.ObservedUse, SourceEvent: u.ID, Source: Source, Account: u.Account, At: u.Time,
		ID: u.KeyID, IAMID: u.IAMID, Name: string(r.Identity.UserName), Parent: string(r.Identity.Session.Issuer.ARN),
	}
}

// expiry reads the forms in which AWS writes the end of a credential.
func expiry(s string) (time.Time, bool) {
	s = strings.ReplaceAll(s, "\u202f", " ")
	for _, layout := range []string{"Jan 2, 2006, 3:04:05 PM", "Jan 2, 2006 3:04:05 PM", time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil && t.Year() >= 1970 && t.Year() <= 2261 {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// memberValue returns a member of an object, or nothing.
func memberValue(object jsontext.Value, name string) jsontext.Value {
	if object.Kind() != '{' || !bytes.Contains(object, []byte(name)) {
		return nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(object))
	if _, err := d.ReadToken(); err != nil {
		return nil
	}
	for d.PeekKind() == '"' {
		t, err := d.ReadToken()
		if err != nil {
			return nil
		}
		found := t.String() == name
		v, err := d.ReadValue()
		if err != nil {
			return nil
		}
		if found {
			return v.Clone()
		}
	}
	return nil
}

// member returns a text member of an object, or "".
func member(object jsontext.Value, name string) string {
	v := memberValue(object, name)
	if v.Kind() != '"' {
		return ""
	}
	b, err := jsontext.AppendUnquote(nil, v)
	if err != nil {
		return ""
	}
	return string(b)
}

// target returns what the call was about, as well as the record tells.
func target(r record) string {
	if s := resource(r.Resources); s != "" {
		return s
	}
	bucket, key := member(r.Request, "bucketName"), member(r.Request, "key")
	switch {
	case bucket != "" && key != "":
		return "arn:aws:s3:::" + bucket + "/" + key
	case bucket != "":
		return "arn:aws:s3:::" + bucket
	}
	for _, name := range []string{
		"resourceArn", "arn", "ARN", "secretId", "roleArn", "policyArn", "functionName", "keyId", "accessKeyId", "roleName", "userName", "groupName",
		"instanceId", "snapshotId", "volumeId", "imageId", "groupId", "tableName", "trailName", "dBInstanceIdentifier", "dBSnapshotIdentifier",
		"stackName", "topicArn", "queueUrl", "logGroupName", "repositoryName", "clusterName", "vpcId", "detectorId", "path", "name",
	} {
		if s := member(r.Request, name); s != "" {
			return s
		}
	}
	return ""
}

// resource returns the ARN of the first resource that has one.
func resource(list jsontext.Value) string {
	if list.Kind() != '[' {
		return ""
	}
	d := jsontext.NewDecoder(bytes.NewReader(list))
	if _, err := d.ReadToken(); err != nil {
		return ""
	}
	for d.PeekKind() != ']' {
		v, err := d.ReadValue()
		if err != nil {
			return ""
		}
		for _, name := range []string{"ARN", "arn"} {
			if s := member(v, name); s != "" {
				return s
			}
		}
	}
	return ""
}
