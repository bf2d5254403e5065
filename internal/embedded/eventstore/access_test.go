package eventstore_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"example.com/keytrail/internal/embedded/eventstore"
)

// The passwords of the users of secureConfig.
const (
	adminPassword = "open: sesame"
	alicePassword = "correct horse"
)

// argon2Of returns a hash in the users file's form.
func argon2Of(password string) string {
	salt := []byte("0123456789abcdef")
	sum := argon2.IDKey([]byte(password), salt, 1, 64, 1, 32)
	enc := base64.RawStdEncoding
	return "$argon2id$v=19$m=64,t=1,p=1$" + enc.EncodeToString(salt) + "$" + enc.EncodeToString(sum)
}

func bcryptOf(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

func writeFile(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// secureConfig returns a server's config with a certificate of its own, and the pool
// that trusts it. Users: admin, alice (in the group auditors), bob.
func secureConfig(t *testing.T) (eventstore.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "log"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	users := fmt.Sprintf("# who may\nadmin:%s\n\nalice:%s:auditors, readers\nbob:%s\n", bcryptOf(t, adminPassword), argon2Of(alicePassword), argon2Of("bob"))
	cfg := eventstore.Config{
		Dir: t.TempDir(), Listen: "127.0.0.1:0",
		CertFile:  writeFile(t, filepath.Join(dir, "crt"), certPEM),
		KeyFile:   writeFile(t, filepath.Join(dir, "key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
		UsersFile: writeFile(t, filepath.Join(dir, "users"), []byte(users)),
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return cfg, pool
}

// login sends a user and a password with every call.
type login struct{ name, password string }

func (l login) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if l.name == "" {
		return map[string]string{}, nil
	}
	return map[string]string{"authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(l.name+":"+l.password))}, nil
}

func (login) RequireTransportSecurity() bool { return true }

func dialTLS(t *testing.T, s *eventstore.Server, pool *x509.CertPool, as login) client {
	t.Helper()
	conn, err := grpc.NewClient(s.Address(), grpc.WithPerRPCCredentials(as),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return client{api.NewStreamsClient(conn)}
}

func openSecure(t *testing.T, cfg eventstore.Config) *eventstore.Server {
	t.Helper()
	s, err := eventstore.Open(cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestOnlyUsersOfTheFileAreServed(t *testing.T) {
	cfg, pool := secureConfig(t)
	var logged bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := openSecure(t, cfg)
	for _, test := range []struct {
		name string
		as   login
		want codes.Code
	}{
		{"the administrator, whose password has a colon", login{"admin", adminPassword}, codes.OK},
		{"a user", login{"alice", alicePassword}, codes.OK},
		{"nobody", login{}, codes.Unauthenticated},
		{"a wrong password", login{"alice", alicePassword + "x"}, codes.Unauthenticated},
		{"another's password", login{"bob", alicePassword}, codes.Unauthenticated},
		{"an unknown user", login{"mallory", alicePassword}, codes.Unauthenticated},
		{"an unknown user with the first user's password", login{"mallory", adminPassword}, codes.Unauthenticated},
		{"no password", login{"alice", ""}, codes.Unauthenticated},
		{"a password without end", login{"alice", strings.Repeat("x", 5000)}, codes.Unauthenticated},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := dialTLS(t, s, pool, test.as)
			for i := range 2 { // The second time from memory.
				_, err := c.append(t.Context(), "kt.a", anyRevision, "t", nil, number(i+1))
				if status.Code(err) != test.want {
					t.Errorf("append: got %v, want %s", err, test.want)
				}
				_, _, err = c.readStream(t.Context(), "kt.a", false, nil, 1)
				if status.Code(err) != test.want {
					t.Errorf("read: got %v, want %s", err, test.want)
				}
				if err := deeds()["batch append"].do(t.Context(), c, "kt.b"); status.Code(err) != test.want {
					t.Errorf("batch append: got %v, want %s", err, test.want)
				}
			}
		})
	}
	for _, secret := range []string{alicePassword, adminPassword, base64.StdEncoding.EncodeToString([]byte("alice:" + alicePassword))} {
		if strings.Contains(logged.String(), secret) {
			t.Error("a credential is in the server's log")
		}
	}
	plain := dialAddressWith(t, s.Address(), insecure.NewCredentials())
	if _, err := plain.append(t.Context(), "kt.a", anyRevision, "t", nil, number(1)); err == nil {
		t.Error("a caller without transport security was served")
	}
}

func dialAddressWith(t *testing.T, address string, creds credentials.TransportCredentials) client {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return client{api.NewStreamsClient(conn)}
}

// deed is something that a user does to a stream.
type deed struct {
	name string
	do   func(ctx context.Context, c client, stream string) error
}

func deeds() map[string]deed {
	named := func(stream string) *shared.StreamIdentifier {
		return &shared.StreamIdentifier{StreamName: []byte(stream)}
	}
	return map[string]deed{
		"read": {"read", func(ctx context.Context, c client, stream string) error {
			_, _, err := c.readStream(ctx, stream, false, nil, 1)
			return err
		}},
		"follow": {"follow", func(ctx context.Context, c client, stream string) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			sub, err := c.Read(ctx, &api.ReadReq{Options: &api.ReadReq_Options{
				StreamOption: &api.ReadReq_Options_Stream{Stream: &api.ReadReq_Options_StreamOptions{StreamIdentifier: named(stream)}},
				CountOption:  &api.ReadReq_Options_Subscription{Subscription: &api.ReadReq_Options_SubscriptionOptions{}},
				UuidOption:   &api.ReadReq_Options_UUIDOption{Content: &api.ReadReq_Options_UUIDOption_Structured{Structured: &shared.Empty{}}},
			}})
			if err != nil {
				return err
			}
			_, err = sub.Recv()
			return err
		}},
		"append": {"append", func(ctx context.Context, c client, stream string) error {
			_, err := c.append(ctx, stream, anyRevision, "t", []byte("{}"), number(77))
			return err
		}},
		"batch append": {"batch append", func(ctx context.Context, c client, stream string) error {
			b, err := c.BatchAppend(ctx)
			if err != nil {
				return err
			}
			// A call that was refused meanwhile is io.EOF: the reason comes with the answer.
			if err := b.Send(batchOf(1, stream, anyRevision, true, 78)); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			m, err := b.Recv()
			if err != nil {
				return err
			}
			return status.ErrorProto(m.GetError())
		}},
		"delete": {"delete", func(ctx context.Context, c client, stream string) error {
			_, err := c.Delete(ctx, &api.DeleteReq{Options: &api.DeleteReq_Options{
				StreamIdentifier: named(stream), ExpectedStreamRevision: &api.DeleteReq_Options_Any{Any: &shared.Empty{}},
			}})
			return err
		}},
		"tombstone": {"tombstone", func(ctx context.Context, c client, stream string) error {
			_, err := c.Tombstone(ctx, &api.TombstoneReq{Options: &api.TombstoneReq_Options{
				StreamIdentifier: named(stream), ExpectedStreamRevision: &api.TombstoneReq_Options_NoStream{NoStream: &shared.Empty{}},
			}})
			return err
		}},
		"read all": {"read all", func(ctx context.Context, c client, _ string) error {
			_, err := c.readAll(ctx, false, 1)
			return err
		}},
	}
}

func TestAccessFollowsTheListOfTheStream(t *testing.T) {
	cfg, pool := secureConfig(t)
	cfg.Logger = testLogger(t)
	s := openSecure(t, cfg)
	admin := dialTLS(t, s, pool, login{"admin", adminPassword})
	list := func(stream, metadata string) {
		t.Helper()
		if a, err := admin.append(t.Context(), "$$"+stream, anyRevision, "$metadata", []byte(metadata), number(len(stream)+len(metadata))); err != nil || !a.ok {
			t.Fatalf("set list of %s: %+v, %v", stream, a, err)
		}
	}
	list("kt.auditors", `{"$acl":{"$r":["auditors"],"$w":"bob","$d":[],"$mr":["$all"]}}`)
	list("kt.odd", `{"$acl":{"$r":{"no":"roles"}}}`)
	list("kt.other", `{"$maxCount":3}`)
	list("$shown", `{"$acl":{"$r":"$all"}}`)
	users := map[string]client{
		"admin": admin, "alice": dialTLS(t, s, pool, login{"alice", alicePassword}), "bob": dialTLS(t, s, pool, login{"bob", "bob"}),
	}
	for _, test := range []struct {
		who, does, stream string
		allowed           bool
	}{
		{"alice", "read", "kt.any", true},
		{"alice", "append", "kt.any", true},
		{"alice", "batch append", "kt.any", true},
		{"alice", "read", "$$kt.any", true},
		{"alice", "delete", "$$kt.any", false},
		{"bob", "delete", "kt.any", true},
		{"alice", "read", "kt.other", true},
		{"alice", "read", "kt.auditors", true},
		{"alice", "follow", "kt.auditors", true},
		{"alice", "append", "kt.auditors", false},
		{"alice", "batch append", "kt.auditors", false},
		{"bob", "read", "kt.auditors", false},
		{"bob", "follow", "kt.auditors", false},
		{"bob", "append", "kt.auditors", true},
		{"bob", "batch append", "kt.auditors", true},
		{"bob", "delete", "kt.auditors", false},
		{"bob", "tombstone", "kt.auditors", false},
		{"bob", "read", "$$kt.auditors", true},
		{"alice", "read", "kt.odd", false},
		{"admin", "read", "kt.odd", true},
		{"alice", "read", "$settings", false},
		{"alice", "append", "$settings", false},
		{"alice", "read", "$$$settings", false},
		{"alice", "read", "$shown", true},
		{"alice", "append", "$shown", false},
		{"alice", "read all", "", false},
		{"admin", "read all", "", true},
		{"admin", "delete", "kt.auditors", true},
	} {
		t.Run(strings.Join([]string{test.who, test.does, test.stream}, " "), func(t *testing.T) {
			err := deeds()[test.does].do(t.Context(), users[test.who], test.stream)
			want := codes.OK
			if !test.allowed {
				want = codes.PermissionDenied
			}
			if status.Code(err) != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// A link must not show what its reader may not read.
func TestALinkIsNotFollowedPastItsTargetsList(t *testing.T) {
	cfg, pool := secureConfig(t)
	cfg.Logger = testLogger(t)
	s := openSecure(t, cfg)
	admin, bob := dialTLS(t, s, pool, login{"admin", adminPassword}), dialTLS(t, s, pool, login{"bob", "bob"})
	for _, e := range []struct {
		stream, typ, data string
	}{{"kt.secret", "t", "{}"}, {"$$kt.secret", "$metadata", `{"$acl":{"$r":[]}}`}, {"kt.links", "$>", "0@kt.secret"}} {
		if a, err := admin.append(t.Context(), e.stream, noStream, e.typ, []byte(e.data), number(len(e.stream))); err != nil || !a.ok {
			t.Fatalf("append: %+v, %v", a, err)
		}
	}
	for _, test := range []struct {
		name  string
		as    client
		shown bool
	}{{"who may read it", admin, true}, {"who may not", bob, false}} {
		t.Run(test.name, func(t *testing.T) {
			down, err := test.as.Read(t.Context(), &api.ReadReq{Options: &api.ReadReq_Options{
				StreamOption: &api.ReadReq_Options_Stream{Stream: &api.ReadReq_Options_StreamOptions{StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte("kt.links")}}},
				ResolveLinks: true, CountOption: &api.ReadReq_Options_Count{Count: 1},
				UuidOption: &api.ReadReq_Options_UUIDOption{Content: &api.ReadReq_Options_UUIDOption_Structured{Structured: &shared.Empty{}}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			m, err := down.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if shown := m.GetEvent().GetEvent() != nil; shown != test.shown || m.GetEvent().GetLink() == nil {
				t.Errorf("target shown: %t, want %t; got %v", shown, test.shown, m)
			}
		})
	}
}

func TestUsersFileIsReadWholeOrRefused(t *testing.T) {
	hash := bcryptOf(t, "x")
	for _, test := range []struct {
		name, file string
		want       []string // What the error says; none: it is taken.
	}{
		{name: "both hashes and groups", file: "a:" + hash + "\n# c\n\nb:" + argon2Of("x") + ":$ops, g\n"},
		{name: "nobody", file: "# nobody\n", want: []string{"no user"}},
		{name: "all mistakes at once", file: "a\nb:secret-in-the-clear\n$x:" + hash + "\n:" + hash, want: []string{"line 1", "line 2", "line 3", "line 4", "never stored in the clear"}},
		{name: "twice", file: "a:" + hash + "\na:" + hash, want: []string{`"a" is there twice`}},
		{name: "a bcrypt hash that costs too much", file: "a:$2a$31$" + hash[7:], want: []string{"cost 31"}},
		{name: "a cut bcrypt hash", file: "a:" + hash[:20], want: []string{"damaged"}},
		{name: "argon2 with too much memory", file: "a:$argon2id$v=19$m=99999999,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg", want: []string{"bounds"}},
		{name: "argon2 without cost", file: "a:$argon2id$v=19$m=0,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg", want: []string{"bounds"}},
		{name: "a hash of no bytes", file: "a:$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$", want: []string{"bounds"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := eventstore.ParseUsers([]byte(test.file))
			if (err != nil) != (len(test.want) > 0) {
				t.Fatalf("got %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to say %q", err, want)
				}
			}
			if err != nil && (strings.Contains(err.Error(), "secret-in-the-clear") || strings.Contains(err.Error(), hash[:20])) {
				t.Errorf("the error repeats a hash: %v", err)
			}
		})
	}
}

func TestAddressWithoutProtectionIsRefused(t *testing.T) {
	good, _ := secureConfig(t)
	for _, test := range []struct {
		name   string
		change func(*eventstore.Config)
		want   string // None: it is served.
	}{
		{"certificate and users", func(*eventstore.Config) {}, ""},
		{"insecure on this machine", func(c *eventstore.Config) { c.CertFile, c.KeyFile, c.UsersFile, c.Insecure = "", "", "", true }, ""},
		{"nothing said", func(c *eventstore.Config) { c.CertFile, c.KeyFile, c.UsersFile = "", "", "" }, "without transport security"},
		{"insecure for all", func(c *eventstore.Config) {
			c.CertFile, c.KeyFile, c.UsersFile, c.Insecure, c.Listen = "", "", "", true, "0.0.0.0:0"
		}, "can be reached by others"},
		{"insecure on every address", func(c *eventstore.Config) {
			c.CertFile, c.KeyFile, c.UsersFile, c.Insecure, c.Listen = "", "", "", true, ":0"
		}, "can be reached by others"},
		{"both", func(c *eventstore.Config) { c.Insecure = true }, "excludes"},
		{"no users", func(c *eventstore.Config) { c.UsersFile = "" }, "belong together"},
		{"no key", func(c *eventstore.Config) { c.KeyFile = "" }, "belong together"},
		{"a socket with a certificate", func(c *eventstore.Config) { c.Listen, c.Socket = "", filepath.Join(shortDir(t), "s") }, "belong to a listen address"},
		{"a certificate that is none", func(c *eventstore.Config) { c.CertFile = c.UsersFile }, "load certificate"},
		{"no such users file", func(c *eventstore.Config) { c.UsersFile += "x" }, "users file"},
		{"a users file that others can change", func(c *eventstore.Config) {
			if err := os.Chmod(c.UsersFile, 0o666); err != nil {
				t.Fatal(err)
			}
		}, "chmod go-w"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := good
			cfg.Dir, cfg.Logger = t.TempDir(), testLogger(t)
			test.change(&cfg)
			s, err := eventstore.Open(cfg)
			if err == nil {
				if err := s.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func FuzzUsersFile(f *testing.F) {
	f.Add([]byte("a:$2a$04$abc\nb:$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg:x,y"))
	f.Add([]byte("a:" + argon2Of("x")))
	f.Fuzz(func(_ *testing.T, data []byte) { _ = eventstore.ParseUsers(data) })
}

func FuzzAccessList(f *testing.F) {
	f.Add([]byte(`{"$acl":{"$r":["a"],"$w":"b","$d":null,"$mr":[],"$mw":1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		roles, err := eventstore.ReadRoles(data)
		if err != nil && roles != nil {
			t.Error("a list that cannot be read lets somebody in")
		}
	})
}
