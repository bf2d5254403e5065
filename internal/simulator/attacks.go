package simulator

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"example.com/keytrail/domain"
)

const consoleAgent = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"

// lifecycle returns what an administrator does in the console on one day: the keys of
// the first day, rotations, switching off, deleting.
func (w *world) lifecycle(from time.Time) []call {
	var calls []call
	add := func(at time.Time, m *member, c call) {
		if at.Before(from) || !at.Before(from.Add(24*time.Hour)) {
			return
		}
		c.at, c.account, c.user, c.console = at, m.account, "root.admin", true
		c.key = w.keyID("ASIA", m.account, "root.admin", at.Format(time.DateOnly))
		c.service, c.source, c.agent, c.region = "iam", "198.51.100.2", consoleAgent, "us-east-1"
		calls = append(calls, c)
	}
	for i, m := range w.members {
		add(w.start.Add(time.Duration(i)*20*time.Second), m, createKey(m.name, m.key))
		if !m.rotated.IsZero() {
			add(m.rotated.Add(-time.Hour), m, createKey(m.name, m.next))
			add(m.rotated.Add(24*time.Hour), m, updateKey(m.name, m.key, "Inactive"))
			add(m.rotated.Add(48*time.Hour), m, deleteKey(m.name, m.key))
		}
		if !m.disabled.IsZero() {
			add(m.disabled, m, updateKey(m.name, m.key, "Inactive"))
		}
		if !m.deleted.IsZero() {
			add(m.deleted, m, deleteKey(m.name, m.key))
		}
	}
	return calls
}

func createKey(user, key string) call {
	return call{
		name: "CreateAccessKey", request: map[string]any{"userName": user},
		response: map[string]any{"accessKey": map[string]any{"accessKeyId": key, "status": "Active", "userName": user}},
	}
}

func updateKey(user, key, status string) call {
	return call{name: "UpdateAccessKey", request: map[string]any{"userName": user, "accessKeyId": key, "status": status}}
}

func deleteKey(user, key string) call {
	return call{name: "DeleteAccessKey", request: map[string]any{"userName": user, "accessKeyId": key}}
}

// attack is an attack and its calls.
type attack struct {
	Attack
	calls []call
}

// attacks returns the four attacks. They use no chance, so that asking for them
// changes nothing else.
func (w *world) attacks() []attack {
	by := make(map[string]*member)
	for _, m := range w.members {
		by[m.name] = m
	}
	return []attack{
		w.afterDelete(by["marc.former"]), w.afterDisable(by["ci-legacy"]), w.reconnoitre(by["build-agent"]), w.persist(by["ops-automation"]),
	}
}

// thief begins an attack with a member's key.
func (w *world) thief(m *member, before time.Duration, title string, rules ...string) (attack, func(after time.Duration, service, name string, read bool, errorCode string) *call) {
	at := w.cfg.End.Add(-before)
	a := attack{Attack: Attack{Title: title, Key: domain.KeyID(m.key), Account: domain.AccountID(m.account), At: at, Rules: rules}}
	return a, func(after time.Duration, service, name string, read bool, errorCode string) *call {
		return &call{
			at: at.Add(after), account: m.account, user: m.name, key: m.key, service: service, name: name, read: read,
			source: "192.0.2." + strconv.Itoa(66+int(before/time.Hour)%90), agent: "python-requests/2.32.3", region: "us-east-1", errorCode: errorCode,
		}
	}
}

// afterDelete: somebody who left still has the key.
func (w *world) afterDelete(m *member) attack {
	a, do := w.thief(m, 3*24*time.Hour+2*time.Hour, "a deleted key is tried again", "key-use-after-delete")
	for i, name := range []string{"GetCallerIdentity", "GetObject", "ListObjects", "GetObject"} {
		service := "s3"
		if i == 0 {
			service = "sts"
		}
		a.calls = append(a.calls, *do(time.Duration(i)*90*time.Second, service, name, true, "InvalidClientTokenId"))
	}
	return a
}

// afterDisable: a key that was switched off long ago turns up on a strange host.
func (w *world) afterDisable(m *member) attack {
	a, do := w.thief(m, 2*24*time.Hour+5*time.Hour, "a disabled key turns up on a strange host", "key-use-after-disable")
	for i := range 5 {
		a.calls = append(a.calls, *do(time.Duration(i)*7*time.Minute, "sts", "GetCallerIdentity", true, "InvalidClientTokenId"))
	}
	return a
}

// reconnoitre: a stolen key looks around, then runs into its limits.
func (w *world) reconnoitre(m *member) attack {
	a, do := w.thief(m, 30*time.Hour, "a stolen key looks around and is refused", "recon-burst", "denied-burst")
	looks := []string{
		"iam:ListUsers", "iam:ListRoles", "iam:GetAccountAuthorizationDetails", "s3:ListBuckets", "ec2:DescribeInstances", "ec2:DescribeSecurityGroups",
		"lambda:ListFunctions", "rds:DescribeDBInstances", "secretsmanager:ListSecrets", "kms:ListKeys", "cloudtrail:DescribeTrails", "organizations:DescribeOrganization",
	}
	for i, look := range looks {
		a.calls = append(a.calls, *do(time.Duration(i)*time.Second, look[:indexColon(look)], look[indexColon(look)+1:], true, ""))
	}
	for i := range 40 {
		c := do(2*time.Minute+time.Duration(i)*8*time.Second, "secretsmanager", "GetSecretValue", true, "AccessDeniedException")
		c.request = map[string]any{"secretId": fmt.Sprintf("prod/database-%02d", i)}
		a.calls = append(a.calls, *c)
	}
	return a
}

func indexColon(s string) int {
	for i := range len(s) {
		if s[i] == ':' {
			return i
		}
	}
	return 0
}

// persist: a stolen key makes itself another way in and blinds the log.
func (w *world) persist(m *member) attack {
	a, do := w.thief(m, 9*time.Hour, "a stolen key makes keys and stops the audit log", "key-makes-keys", "audit-tamper")
	const user = "svc-backup2"
	made := w.keyID("AKIA", m.account, user, "1")
	say := func(c *call, request, response map[string]any) {
		c.request, c.response = request, response
		a.calls = append(a.calls, *c)
	}
	say(do(0, "sts", "GetCallerIdentity", true, ""), nil, nil)
	say(do(40*time.Second, "iam", "CreateUser", false, ""), map[string]any{"userName": user}, nil)
	made1 := createKey(user, made)
	say(do(65*time.Second, "iam", "CreateAccessKey", false, ""), made1.request, made1.response)
	say(do(80*time.Second, "iam", "AttachUserPolicy", false, ""), map[string]any{"userName": user, "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}, nil)
	trail := map[string]any{"name": "arn:aws:cloudtrail:us-east-1:" + m.account + ":trail/organisation"}
	for i, name := range []string{"StopLogging", "DeleteTrail"} {
		c := do(time.Duration(3+i)*time.Minute, "cloudtrail", name, false, "")
		c.user, c.key = user, made
		if i == 0 {
			c.user, c.key = m.name, m.key
		}
		say(c, trail, nil)
	}
	return a
}

// The shape of a record.
type (
	recordJSON struct {
		Version     string         `json:"eventVersion"`
		Identity    identityJSON   `json:"userIdentity"`
		Time        string         `json:"eventTime"`
		Source      string         `json:"eventSource"`
		Name        string         `json:"eventName"`
		Region      string         `json:"awsRegion"`
		Address     string         `json:"sourceIPAddress"`
		Agent       string         `json:"userAgent"`
		ErrorCode   string         `json:"errorCode,omitempty"`
		Request     map[string]any `json:"requestParameters"`
		Response    map[string]any `json:"responseElements"`
		RequestID   string         `json:"requestID"`
		ID          string         `json:"eventID"`
		ReadOnly    bool           `json:"readOnly"`
		Type        string         `json:"eventType"`
		Recipient   string         `json:"recipientAccountId"`
		FromConsole string         `json:"sessionCredentialFromConsole,omitempty"`
	}
	identityJSON struct {
		Type    string `json:"type"`
		ARN     string `json:"arn"`
		Account string `json:"accountId"`
		Key     string `json:"accessKeyId"`
		User    string `json:"userName"`
	}
)

// render writes a call as CloudTrail does.
func (w *world) render(c call) []byte {
	w.events++
	seed, no := fmt.Sprint(w.cfg.Seed, w.cfg.End.Unix(), w.cfg.Uses, w.cfg.Days), strconv.FormatUint(w.events, 10)
	r := recordJSON{
		Version: "1.10", Time: c.at.Format(time.RFC3339), Source: c.service + ".amazonaws.com", Name: c.name, Region: c.region,
		Identity: identityJSON{Type: "IAMUser", ARN: "arn:aws:iam::" + c.account + ":user/" + c.user, Account: c.account, Key: c.key, User: c.user},
		Address:  c.source, Agent: c.agent, ErrorCode: c.errorCode, Request: c.request, Response: c.response,
		RequestID: domain.DeriveID("simulated request", seed, no).String(), ID: domain.DeriveID("simulated event", seed, no).String(),
		ReadOnly: c.read, Type: "AwsApiCall", Recipient: c.account,
	}
	if c.console {
		r.FromConsole = "true"
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // Texts and maps of texts always encode.
	}
	return b
}
