package cloudtrail_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/cloudtrail"
)

// record builds a record with the given members beside the necessary ones.
func record(members string) string {
	return `{"eventID":"e1","eventTime":"2023-07-10T11:42:18Z","eventSource":"iam.amazonaws.com","eventName":"ListUsers","recipientAccountId":"123456789012",` +
		`"userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::123456789012:user/bea","accessKeyId":"AKIA1","userName":"bea"}` + members + "}"
}

func parse(t *testing.T, raw string) cloudtrail.Observed {
	t.Helper()
	o, err := cloudtrail.Parser{Default: "default-account"}.Parse([]byte(raw))
	if err != nil {
		t.Fatalf("parse %s: %v", raw, err)
	}
	return o
}

func TestARecordIsOneUse(t *testing.T) {
	got := parse(t, record(`,"sourceIPAddress":"035.249.253.232","userAgent":"[aws-cli/2]","awsRegion":"us-east-1","requestID":"r1","readOnly":true,`+
		`"errorCode":"AccessDenied","errorMessage":"no","resources":[null,{"ARN":"arn:x"}],"requestParameters":{"userName":"bea"},"sessionCredentialFromConsole":"true"`)).Use
	want := domain.Use{
		ID: "e1", Time: time.Date(2023, 7, 10, 11, 42, 18, 0, time.UTC), Account: "123456789012", KeyID: "AKIA1",
		IAMID: "arn:aws:iam::123456789012:user/bea", Action: "iam:ListUsers", Access: domain.AccessRead,
		Outcome: domain.OutcomeFailure, Status: 403, ErrorCode: "AccessDenied", Source: "035.249.253.232", UserAgent: "aws-cli/2",
		Region: "us-east-1", Target: "arn:x", RequestID: "r1",
		Labels: map[string]string{
			"event_name": "ListUsers", "event_source": "iam.amazonaws.com", "identity_type": "IAMUser", "user_name": "bea",
			"error_message": "no", "session_credential_from_console": "true", "request_parameters": `{"userName":"bea"}`,
			"identity_account_id": "",
		},
	}
	delete(want.Labels, "identity_account_id")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOutcomeFollowsTheErrorCode(t *testing.T) {
	tests := []struct {
		name, members string
		outcome       domain.Outcome
		status        int
	}{
		{name: "none", outcome: domain.OutcomeSuccess, status: 200},
		{name: "null", members: `,"errorCode":null`, outcome: domain.OutcomeSuccess, status: 200},
		{name: "denied", members: `,"errorCode":"AccessDeniedException"`, outcome: domain.OutcomeFailure, status: 403},
		{name: "denied by EC2", members: `,"errorCode":"Client.UnauthorizedOperation"`, outcome: domain.OutcomeFailure, status: 403},
		{name: "bad credentials", members: `,"errorCode":"InvalidClientTokenId"`, outcome: domain.OutcomeFailure, status: 401},
		{name: "throttled", members: `,"errorCode":"ThrottlingException"`, outcome: domain.OutcomeFailure, status: 429},
		{name: "a fault of AWS", members: `,"errorCode":"InternalFailure"`, outcome: domain.OutcomeFailure, status: 500},
		{name: "another", members: `,"errorCode":"NoSuchBucket"`, outcome: domain.OutcomeFailure, status: 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := parse(t, record(tt.members)).Use
			if u.Outcome != tt.outcome || u.Status != tt.status {
				t.Errorf("got %s %d, want %s %d", u.Outcome, u.Status, tt.outcome, tt.status)
			}
		})
	}
}

func TestForeignShapesOfARecordAreRead(t *testing.T) {
	tests := []struct {
		name, raw string
		check     func(domain.Use) bool
	}{
		{name: "@timestamp", raw: `{"eventName":"A","@timestamp":"2020-09-14T00:44:20.123Z"}`, check: func(u domain.Use) bool {
			return u.Time.Equal(time.Date(2020, 9, 14, 0, 44, 20, 123e6, time.UTC))
		}},
		{name: "no account", raw: `{"eventName":"A","eventTime":"2020-09-14T00:44:20Z"}`, check: func(u domain.Use) bool { return u.Account == "default-account" }},
		{name: "an account as a number", raw: `{"eventName":"A","eventTime":"2020-09-14T00:44:20Z","recipientAccountId":123456789012}`, check: func(u domain.Use) bool { return u.Account == "123456789012" }},
		{name: "a masked account", raw: `{"eventName":"A","eventTime":"2020-09-14T00:44:20Z","recipientAccountId":"700***"}`, check: func(u domain.Use) bool {
			return u.Account == "default-account" && u.Labels[cloudtrail.LabelRecipientAccountID] == "700***"
		}},
		{name: "a masked key", raw: `{"eventName":"A","eventTime":"2020-09-14T00:44:20Z","userIdentity":{"accessKeyId":"AKIA****"}}`, check: func(u domain.Use) bool {
			return u.KeyID == "" && u.Labels[cloudtrail.LabelAccessKeyID] == "AKIA****"
		}},
		{name: "no identity", raw: `{"eventName":"A","eventTime":"2020-09-14T00:44:20Z","userIdentity":null}`, check: func(u domain.Use) bool { return u.KeyID == "" && u.IAMID == "" }},
		{name: "a service", raw: `{"eventName":"A","eventTime":"2020-09-14T00:44:20Z","userIdentity":{"type":"AWSService","invokedBy":"x.amazonaws.com"}}`, check: func(u domain.Use) bool { return u.IAMID == "x.amazonaws.com" }},
		{name: "no readOnly, a write", raw: `{"eventName":"PutThing","eventTime":"2020-09-14T00:44:20Z"}`, check: func(u domain.Use) bool { return u.Access == domain.AccessWrite && u.Action == "aws:PutThing" }},
		{name: "no id: the same for the same bytes", raw: `{"eventName":"A","eventTime":"2020-09-14T00:44:20Z"}`, check: func(u domain.Use) bool { return u.ID == "adc8e5f0-59ac-5413-8e41-b5b95ac06b8e" || len(u.ID) == 36 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if u := parse(t, tt.raw).Use; !tt.check(u) {
				t.Errorf("got %+v", u)
			}
		})
	}
}

func TestWhatCannotBeAUseIsAnErrorThatQuotesNothing(t *testing.T) {
	for _, raw := range []string{
		`{}`, `[]`, `{"eventName":"hunter2"}`, `{"eventTime":"2020-09-14T00:44:20Z"}`, `{"eventName":"hunter2","eventTime":"hunter2"}`,
		`{"eventName":{"hunter2":1},"eventTime":"2020-09-14T00:44:20Z"}`, `{"eventName":"hunter2","eventTime":"0001-01-01T00:00:00Z"}`, `{"eventName":"hunter2`,
	} {
		_, err := cloudtrail.Parser{}.Parse([]byte(raw))
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestFactsAboutKeys(t *testing.T) {
	at := time.Date(2023, 7, 10, 11, 42, 18, 0, time.UTC)
	ends := time.Date(2023, 7, 10, 12, 9, 47, 0, time.UTC)
	base := domain.ObserveKey{SourceEvent: "e1", Account: "123456789012", Source: "aws", At: at}
	with := func(f func(*domain.ObserveKey)) []domain.ObserveKey { b := base; f(&b); return []domain.ObserveKey{b} }
	call := func(source, name, rest string) string {
		raw := strings.Replace(record(rest), "iam.amazonaws.com", source, 1)
		return strings.Replace(raw, "ListUsers", name, 1)
	}
	tests := []struct {
		name, raw string
		want      []domain.ObserveKey
	}{
		{
			name: "created for another",
			raw:  call("iam.amazonaws.com", "CreateAccessKey", `,"responseElements":{"accessKey":{"accessKeyId":"AKIA2","status":"Active","userName":"eve"}}`),
			want: with(func(f *domain.ObserveKey) {
				f.Fact, f.ID, f.IAMID, f.Name = domain.ObservedCreated, "AKIA2", "arn:aws:iam::123456789012:user/eve", "eve"
			}),
		},
		{
			name: "disabled, own",
			raw:  call("iam.amazonaws.com", "UpdateAccessKey", `,"requestParameters":{"accessKeyId":"AKIA1","status":"Inactive"}`),
			want: with(func(f *domain.ObserveKey) {
				f.Fact, f.ID, f.IAMID = domain.ObservedDisabled, "AKIA1", "arn:aws:iam::123456789012:user/bea"
			}),
		},
		{
			name: "enabled",
			raw:  call("iam.amazonaws.com", "UpdateAccessKey", `,"requestParameters":{"accessKeyId":"AKIA1","status":"Active","userName":"bea"}`),
			want: with(func(f *domain.ObserveKey) {
				f.Fact, f.ID, f.IAMID, f.Name = domain.ObservedEnabled, "AKIA1", "arn:aws:iam::123456789012:user/bea", "bea"
			}),
		},
		{
			name: "deleted",
			raw:  call("iam.amazonaws.com", "DeleteAccessKey", `,"requestParameters":{"accessKeyId":"AKIA2","userName":"eve"}`),
			want: with(func(f *domain.ObserveKey) {
				f.Fact, f.ID, f.IAMID, f.Name = domain.ObservedDeleted, "AKIA2", "arn:aws:iam::123456789012:user/eve", "eve"
			}),
		},
		{
			name: "issued to a role",
			raw: call("sts.amazonaws.com", "AssumeRole", `,"requestParameters":{"roleSessionName":"s"},"responseElements":{"credentials":{"accessKeyId":"ASIA1","expiration":"Jul 10, 2023, 12:09:47`+"\u202f"+`PM"},`+
				`"assumedRoleUser":{"arn":"arn:aws:sts::123456789012:assumed-role/r/s"}}`),
			want: with(func(f *domain.ObserveKey) {
				f.Fact, f.ID, f.IAMID, f.Name = domain.ObservedIssued, "ASIA1", "arn:aws:sts::123456789012:assumed-role/r/s", "s"
				f.Parent, f.ExpiresAt = "AKIA1", &ends
			}),
		},
		{name: "refused: no fact", raw: call("iam.amazonaws.com", "DeleteAccessKey", `,"errorCode":"AccessDenied","requestParameters":{"accessKeyId":"AKIA2"}`)},
		{name: "another service's call of the same name", raw: call("x.amazonaws.com", "DeleteAccessKey", `,"requestParameters":{"accessKeyId":"AKIA2"}`)},
		{name: "a masked key", raw: call("iam.amazonaws.com", "DeleteAccessKey", `,"requestParameters":{"accessKeyId":"AKIA***"}`)},
		{name: "no key named", raw: call("iam.amazonaws.com", "DeleteAccessKey", `,"requestParameters":null`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, parse(t, tt.raw).Facts); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSecretsInParametersDoNotStay(t *testing.T) {
	raw := record(`,"requestParameters":{"masterUserPassword":"hunter2","a":[{"newP\u0061ssword":"hunter2","n":1}],"secretId":"keep-me","clientSecret":{"x":"hunter2","y":2}},` +
		`"responseElements":{"credentials":{"sessionToken":"hunter2","accessKeyId":"keep-me"},"pending":{"masterUserPassword":"****"}},"additionalEventData":{"SecretString":"hunter2"}`)
	u := parse(t, raw).Use
	b, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "hunter2") {
		t.Errorf("a secret stayed: %s", b)
	}
	want := `{"masterUserPassword":"[removed]","a":[{"newPassword":"[removed]","n":1}],"secretId":"keep-me","clientSecret":{"x":"[removed]","y":"[removed]"}}`
	if diff := cmp.Diff(want, u.Labels[cloudtrail.LabelRequestParameters]); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(u.Labels[cloudtrail.LabelResponseElements], `"masterUserPassword":"****"`) {
		t.Errorf("AWS's own mask was lost: %s", u.Labels[cloudtrail.LabelResponseElements])
	}
}

func TestRedactReachesEveryStringThatIsKept(t *testing.T) {
	const secret = "kt_hunter2"
	raw := strings.ReplaceAll(`{"eventID":"SECRET","eventTime":"2023-07-10T11:42:18Z","eventSource":"sts.amazonaws.com","eventName":"AssumeRole","awsRegion":"SECRET",
	 "userIdentity":{"arn":"SECRET","accessKeyId":"SECRET","userName":"SECRET","principalId":"SECRET","sessionContext":{"sessionIssuer":{"arn":"SECRET"}}},
	 "sourceIPAddress":"SECRET","userAgent":"SECRET","errorMessage":"SECRET","requestID":"SECRET","resources":[{"ARN":"SECRET"}],
	 "requestParameters":{"roleSessionName":"SECRET"},"responseElements":{"credentials":{"accessKeyId":"ASIA1"},"assumedRoleUser":{"arn":"SECRET"}}}`, "SECRET", secret)
	p := cloudtrail.Parser{Default: "acc", Redact: func(s string) string { return strings.ReplaceAll(s, secret, "[x]") }}
	o, err := p.Parse([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%+v", o); strings.Contains(s, secret) || len(o.Facts) != 1 {
		t.Errorf("the secret stayed: %s", s)
	}
}

func TestAnOversizeLabelIsMarked(t *testing.T) {
	u := parse(t, record(`,"requestParameters":{"userData":"`+strings.Repeat("x", cloudtrail.LabelBytesMax)+`"}`)).Use
	if got := u.Labels[cloudtrail.LabelRequestParameters]; !strings.HasPrefix(got, `{"oversize":true,"bytes":16399,"sha256":"`) {
		t.Errorf("got %.80q", got)
	}
	u = parse(t, record(`,"errorMessage":"`+strings.Repeat("x", cloudtrail.LabelBytesMax+1)+`"`)).Use
	if got := u.Labels[cloudtrail.LabelErrorMessage]; !strings.HasPrefix(got, `{"oversize":true,"bytes":16385,`) {
		t.Errorf("got %.80q", got)
	}
}

func TestRealLogsGiveOneUseARecord(t *testing.T) {
	tests := []struct {
		file         string
		uses, facts  int
		keys, denied int
	}{
		{file: "invictus", uses: 2900, facts: 40, keys: 133, denied: 60},
		{file: "opensearch", uses: 841, facts: 65},
		{file: "boogy", uses: 1685, facts: 95},
		{file: "otrf", uses: 103, facts: 5},
		{file: "traildiscover", uses: 313, denied: 209},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			f, err := os.Open(filepath.Join("..", "..", "..", "shared", "data", "cloudtrail", tt.file+".ndjson.gz"))
			if err != nil {
				t.Skip("the shared real logs are not here: ", err)
			}
			t.Cleanup(func() { _ = f.Close() })
			ids, keys := map[string]bool{}, map[domain.KeyID]bool{}
			var facts, denied int
			for raw, err := range cloudtrail.Records(f) {
				if err != nil {
					t.Fatal(err)
				}
				o := parse(t, string(raw.JSON))
				ids[o.Use.ID], keys[o.Use.KeyID] = true, true
				facts += len(o.Facts)
				if o.Use.Status == 403 {
					denied++
				}
			}
			delete(keys, "")
			if len(ids) != tt.uses {
				t.Errorf("got %d uses, want %d", len(ids), tt.uses)
			}
			if facts != tt.facts {
				t.Errorf("got %d facts, want %d", facts, tt.facts)
			}
			if tt.keys > 0 && len(keys) != tt.keys {
				t.Errorf("got %d keys, want %d", len(keys), tt.keys)
			}
			if tt.denied > 0 && denied != tt.denied {
				t.Errorf("got %d denied, want %d", denied, tt.denied)
			}
		})
	}
}

// go test -run '^$' -bench Parse ./internal/cloudtrail
func BenchmarkParse(b *testing.B) {
	raw := []byte(record(`,"sourceIPAddress":"10.0.0.1","userAgent":"[Boto3/1.26.165 Python/3.10.6 Linux/5.19.0]","awsRegion":"us-east-1","requestID":"699479d4-2a01-4e9e-bf31-4ec5dc88677e","readOnly":true,` +
		`"requestParameters":{"bucketName":"bucketsevidence","Host":"bucketsevidence.s3.us-east-1.amazonaws.com","policy":""},"responseElements":null,"eventType":"AwsApiCall","managementEvent":true,"eventCategory":"Management"`))
	b.Run(fmt.Sprintf("bytes=%d", len(raw)), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := (cloudtrail.Parser{}).Parse(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}
