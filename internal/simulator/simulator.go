package simulator

import (
	"cmp"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"example.com/keytrail/domain"
)

// Config says what to make up.
type Config struct {
	Seed uint64
	// End is the end of the month; attacks are counted back from it. Required.
	End time.Time
	// Uses is about how many records there are. Default 120,000.
	Uses int
	// Days is how long the organisation has worked. Default 30, at least 14.
	Days int
}

func (c *Config) setDefaults() {
	if c.Uses == 0 {
		c.Uses = 120_000
	}
	c.Days = cmp.Or(c.Days, 30)
	c.Days = max(c.Days, 14)
	c.End = c.End.UTC().Truncate(time.Second)
}

// Record is one record of CloudTrail.
type Record struct {
	Time time.Time
	JSON []byte
}

// Attack is one of the attacks among the records.
type Attack struct {
	Title string
	// Key is the key by which it is found, in Account.
	Key     domain.KeyID
	Account domain.AccountID
	At      time.Time
	// Rules are those that should flag it.
	Rules []string
}

// Attacks returns what Generate hides for cfg.
func Attacks(cfg Config) []Attack {
	cfg.setDefaults()
	w := newWorld(cfg)
	attacks := w.attacks()
	out := make([]Attack, 0, len(attacks))
	for _, a := range attacks {
		out = append(out, a.Attack)
	}
	return out
}

// Generate returns the records of cfg in the order of their times.
func Generate(cfg Config) iter.Seq[Record] {
	cfg.setDefaults()
	return func(yield func(Record) bool) {
		w := newWorld(cfg)
		attacks := w.attacks()
		for day := range cfg.Days {
			from := w.start.Add(time.Duration(day) * 24 * time.Hour)
			calls := w.day(from)
			for _, a := range attacks {
				calls = append(calls, within(a.calls, from)...)
			}
			slices.SortStableFunc(calls, func(a, b call) int { return a.at.Compare(b.at) })
			for _, c := range calls {
				if !yield(Record{Time: c.at, JSON: w.render(c)}) {
					return
				}
			}
		}
	}
}

func within(calls []call, from time.Time) []call {
	var out []call
	for _, c := range calls {
		if !c.at.Before(from) && c.at.Before(from.Add(24*time.Hour)) {
			out = append(out, c)
		}
	}
	return out
}

// world is the organisation.
type world struct {
	cfg     Config
	start   time.Time
	rng     *rand.Rand
	members []*member
	weight  float64 // Of all members' hours together.
	events  uint64
}

// member is a person or a program with a key.
type member struct {
	account string
	name    string
	person  bool
	key     string
	weight  float64
	sources []string
	agents  []string
	actions []action
	// disabled and deleted end the key's honest work.
	disabled, deleted time.Time
	// rotated is when a second key takes over; the first is disabled a day later and
	// deleted after another.
	rotated time.Time
	next    string
}

// keyAt returns the key that the member works with at t, "" for none.
func (m *member) keyAt(t time.Time) string {
	switch {
	case !m.disabled.IsZero() && !t.Before(m.disabled), !m.deleted.IsZero() && !t.Before(m.deleted):
		return ""
	case !m.rotated.IsZero() && !t.Before(m.rotated):
		return m.next
	}
	return m.key
}

// action is a call that a member makes again and again.
type action struct {
	service, name string
	read          bool
	targets       int // Different ones.
}

// call is a record to be.
type call struct {
	at            time.Time
	account       string
	user, key     string
	console       bool
	service, name string
	read          bool
	source, agent string
	region        string
	errorCode     string
	request       map[string]any
	response      map[string]any
}

func newWorld(cfg Config) *world {
	w := &world{
		cfg: cfg, start: cfg.End.Add(-time.Duration(cfg.Days) * 24 * time.Hour),
		rng: rand.New(rand.NewPCG(cfg.Seed, 0x6b657974)), //nolint:gosec // Chance that can be repeated, not secrets.
	}
	people := []string{"anna.weber", "ben.okafor", "chloe.martin", "dev.patel", "eva.lindqvist", "farid.haddad"}
	programs := []string{"web-frontend", "billing-batch", "image-resizer", "report-builder", "backup-runner", "metrics-shipper", "order-worker"}
	for i, account := range []string{"314159265358", "271828182845", "161803398874"} {
		for n, name := range people {
			w.add(account, name, true, 0.4+w.rng.Float64(), fmt.Sprintf("198.51.100.%d", 10+n), fmt.Sprintf("203.0.113.%d", 40+10*i+n))
		}
		for n, name := range programs {
			w.add(account, name, false, 0.8+2*w.rng.Float64(), fmt.Sprintf("10.%d.0.%d", 20+i, 10+n), fmt.Sprintf("10.%d.1.%d", 20+i, 10+n))
		}
	}
	w.add("314159265358", "marc.former", true, 0.5, "198.51.100.31").deleted = w.cfg.End.Add(-5 * 24 * time.Hour)
	w.add("271828182845", "ci-legacy", false, 1, "10.21.2.5").disabled = w.cfg.End.Add(-8 * 24 * time.Hour)
	w.add("314159265358", "build-agent", false, 1.5, "10.20.2.9", "10.20.2.10")
	w.add("271828182845", "ops-automation", false, 1, "10.21.2.20")
	for i, m := range w.members[:12] {
		if i%4 == 1 {
			m.rotated = w.start.Add(time.Duration(6+i)*24*time.Hour + 10*time.Hour)
		}
	}
	for _, m := range w.members {
		for h := range 24 * 7 {
			w.weight += m.weight * m.rhythm(w.start.Add(time.Duration(h)*time.Hour))
		}
	}
	w.weight *= float64(cfg.Days) / 7
	return w
}

func (w *world) add(account, name string, person bool, weight float64, sources ...string) *member {
	m := &member{
		account: account, name: name, person: person, weight: weight, sources: sources,
		key: w.keyID("AKIA", account, name, "1"), next: w.keyID("AKIA", account, name, "2"),
	}
	agents := []string{"aws-sdk-go-v2/1.30.3 os/linux lang/go#1.24.1", "Boto3/1.34.131 md/Botocore#1.34.131 lang/python#3.12.4", "aws-sdk-java/2.26.12 Linux/6.1"}
	if person {
		agents = []string{"aws-cli/2.17.9 md/awscrt#0.20.11 os/macos", "APN/1.0 HashiCorp/1.0 Terraform/1.9.2 aws-sdk-go-v2/1.30.3", "Boto3/1.34.131 Python/3.12.4 Darwin/23.5.0"}
	}
	m.agents = []string{agents[w.rng.IntN(len(agents))]}
	m.actions = w.profile()
	w.members = append(w.members, m)
	return m
}

// profile picks what a member does: mostly everyday work, and few ways of looking
// around, as honest keys have.
func (w *world) profile() []action {
	work := []action{
		{"s3", "GetObject", true, 400},
		{"s3", "PutObject", false, 200},
		{"dynamodb", "GetItem", true, 20},
		{"dynamodb", "PutItem", false, 20},
		{"sqs", "ReceiveMessage", true, 5},
		{"sqs", "SendMessage", false, 5},
		{"kms", "Decrypt", true, 3},
		{"secretsmanager", "GetSecretValue", true, 4},
		{"lambda", "Invoke", false, 10},
		{"dynamodb", "Query", true, 20},
	}
	look := []action{
		{"ec2", "DescribeInstances", true, 1},
		{"s3", "ListObjects", true, 20},
		{"cloudwatch", "GetMetricData", true, 1},
		{"logs", "FilterLogEvents", true, 10},
		{"ecs", "DescribeServices", true, 5},
		{"rds", "DescribeDBInstances", true, 2},
	}
	w.rng.Shuffle(len(work), func(i, j int) { work[i], work[j] = work[j], work[i] })
	w.rng.Shuffle(len(look), func(i, j int) { look[i], look[j] = look[j], look[i] })
	return append(work[:3+w.rng.IntN(3)], look[:1+w.rng.IntN(2)]...)
}

// rhythm is how busy a member is in the hour of t: people work by day and in the
// week, programs always, with more to do by day.
func (m *member) rhythm(t time.Time) float64 {
	hour, weekend := t.Hour(), t.Weekday() == time.Saturday || t.Weekday() == time.Sunday
	switch {
	case m.person && (weekend || hour < 7 || hour > 18):
		return 0
	case m.person && (hour == 7 || hour == 12 || hour == 18):
		return 0.4
	case m.person:
		return 1
	case weekend:
		return 0.5
	case hour >= 7 && hour <= 19:
		return 1
	}
	return 0.45
}

// day returns the honest calls of one day.
func (w *world) day(from time.Time) []call {
	calls := w.lifecycle(from)
	for _, m := range w.members {
		for h := range 24 {
			at := from.Add(time.Duration(h) * time.Hour)
			mean := float64(w.cfg.Uses) * m.weight * m.rhythm(at) / w.weight
			for range w.about(mean) {
				// The first minutes of the month belong to the making of the keys.
				when := at.Add(time.Duration(w.rng.Int64N(int64(time.Hour))).Truncate(time.Second))
				if when.Before(w.start.Add(30 * time.Minute)) {
					continue
				}
				if c, ok := w.work(m, when, mean); ok {
					calls = append(calls, c)
				}
			}
		}
	}
	return calls
}

// about returns a whole number near mean, by chance.
func (w *world) about(mean float64) int {
	mean *= 0.6 + 0.8*w.rng.Float64()
	n := int(mean)
	if w.rng.Float64() < mean-float64(n) {
		n++
	}
	return n
}

// work is one honest call.
func (w *world) work(m *member, at time.Time, hourly float64) (call, bool) {
	a := m.actions[w.rng.IntN(len(m.actions))]
	c := call{
		at: at, account: m.account, user: m.name, key: m.keyAt(at), service: a.service, name: a.name, read: a.read,
		source: m.sources[w.rng.IntN(len(m.sources))], agent: m.agents[0], region: "eu-central-1",
		request: requestFor(a.service, m.name, w.rng.IntN(a.targets)),
	}
	switch chance := w.rng.Float64(); {
	case chance < min(0.004, 1/(hourly+1)):
		c.errorCode = "AccessDenied"
	case chance < 0.012:
		c.errorCode = "ResourceNotFoundException"
	case chance < 0.015:
		c.errorCode = "ThrottlingException"
	}
	return c, c.key != ""
}

func requestFor(service, name string, n int) map[string]any {
	switch service {
	case "s3":
		return map[string]any{"bucketName": name + "-data", "key": fmt.Sprintf("part/%05d", n)}
	case "dynamodb":
		return map[string]any{"tableName": fmt.Sprintf("%s-%d", name, n%4)}
	case "sqs":
		return map[string]any{"queueUrl": fmt.Sprintf("https://sqs.eu-central-1.amazonaws.com/%s-%d", name, n)}
	case "secretsmanager":
		return map[string]any{"secretId": fmt.Sprintf("%s/credential-%d", name, n)}
	case "lambda":
		return map[string]any{"functionName": fmt.Sprintf("%s-%d", name, n)}
	}
	return nil
}

func (w *world) keyID(prefix, account, name, no string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	id := domain.DeriveID("simulated key", fmt.Sprint(w.cfg.Seed), account, name, no)
	out := []byte(prefix)
	for _, b := range id {
		out = append(out, digits[b%32])
	}
	return string(out)
}
