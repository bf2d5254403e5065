package eventstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

const (
	// adminGroup may do everything, as in EventStoreDB.
	adminGroup = "$admins"
	// usersFileBytesMax bounds the users file.
	usersFileBytesMax = 1 << 20
	// passwordBytesMax bounds a password that is presented; bcrypt takes 72.
	passwordBytesMax = 1024
	// bcryptCostMax and the argon2 bounds keep one login below about a second.
	bcryptCostMax     = 14
	argon2MemoryKiB   = 256 << 10
	argon2TimeMax     = 16
	argon2ThreadsMax  = 16
	argon2BytesMin    = 16
	argon2BytesMax    = 64
	saltBytesMin      = 8
	knownLoginsMax    = 4096
	concurrentHashes  = 2
	userNameBytesMax  = 128
	userGroupsMax     = 32
	usersFileWritable = 0o022
)

var errBadUsers = errors.New("users file")

// user is one line of the users file.
type user struct {
	name   string
	hash   passwordHash
	groups []string
}

// admin reports whether u may do everything.
func (u *user) admin() bool { return slices.Contains(u.groups, adminGroup) }

// has reports whether u has a role: a group, its own name, or everybody's.
func (u *user) has(role string) bool {
	return role == allRole || role == u.name || slices.Contains(u.groups, role)
}

// passwordHash checks passwords, in a time that does not depend on what is wrong.
type passwordHash interface{ matches(password []byte) bool }

type bcryptHash []byte

func (h bcryptHash) matches(password []byte) bool {
	return bcrypt.CompareHashAndPassword(h, password) == nil
}

type argon2Hash struct {
	timeCost, memoryKiB uint32
	threads             uint8
	salt, sum           []byte
}

func (h argon2Hash) matches(password []byte) bool {
	sum := argon2.IDKey(password, h.salt, h.timeCost, h.memoryKiB, h.threads, uint32(len(h.sum))) //nolint:gosec // At most argon2BytesMax.
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

// readUsers reads a users file that nobody but its owner can change.
func readUsers(path string) (map[string]*user, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadUsers, err)
	}
	switch {
	case info.Size() > usersFileBytesMax:
		return nil, fmt.Errorf("%w %s has %d bytes, at most %d", errBadUsers, path, info.Size(), usersFileBytesMax)
	case info.Mode().Perm()&usersFileWritable != 0:
		return nil, fmt.Errorf("%w %s can be changed by others than its owner (mode %s): chmod go-w it", errBadUsers, path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadUsers, err)
	}
	users, err := parseUsers(data)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", errBadUsers, path, err)
	}
	return users, nil
}

// parseUsers reads lines of name:hash or name:hash:group,group. The user admin is in
// $admins. Empty lines and lines that begin with # are left out. All that is wrong is
// reported at once; hashes are not repeated in errors.
func parseUsers(data []byte) (map[string]*user, error) {
	users := map[string]*user{}
	var errs []error
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		u, err := parseUser(line)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("line %d: %w", n, err))
		case users[u.name] != nil:
			errs = append(errs, fmt.Errorf("line %d: user %q is there twice", n, u.name))
		default:
			users[u.name] = u
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, err)
	}
	if len(users) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("it names no user"))
	}
	return users, errors.Join(errs...)
}

func parseUser(line string) (*user, error) {
	fields := strings.Split(line, ":")
	if len(fields) < 2 || len(fields) > 3 {
		return nil, errors.New("want name:hash or name:hash:group,group")
	}
	u := &user{name: fields[0]}
	if u.name == "" || len(u.name) > userNameBytesMax || u.name[0] == '$' || strings.ContainsAny(u.name, " \t") {
		return nil, fmt.Errorf("%q is no user name", u.name)
	}
	var err error
	if u.hash, err = parseHash(fields[1]); err != nil {
		return nil, fmt.Errorf("user %q: %w", u.name, err)
	}
	if len(fields) == 3 {
		for group := range strings.SplitSeq(fields[2], ",") {
			if group = strings.TrimSpace(group); group != "" {
				u.groups = append(u.groups, group)
			}
		}
	}
	if len(u.groups) > userGroupsMax {
		return nil, fmt.Errorf("user %q has %d groups, at most %d", u.name, len(u.groups), userGroupsMax)
	}
	if u.name == "admin" && !u.admin() {
		u.groups = append(u.groups, adminGroup)
	}
	return u, nil
}

func parseHash(s string) (passwordHash, error) {
	switch {
	case strings.HasPrefix(s, "$2"):
		cost, err := bcrypt.Cost([]byte(s))
		if err != nil {
			return nil, errors.New("its bcrypt hash is damaged")
		}
		if cost > bcryptCostMax {
			return nil, fmt.Errorf("its bcrypt hash has cost %d, at most %d", cost, bcryptCostMax)
		}
		return bcryptHash(s), nil
	case strings.HasPrefix(s, "$argon2id$"):
		return parseArgon2(s)
	}
	return nil, errors.New("its hash is neither bcrypt ($2b$…) nor argon2id ($argon2id$…): passwords are never stored in the clear (htpasswd -nB NAME makes one)")
}

// parseArgon2 reads $argon2id$v=19$m=65536,t=3,p=4$salt$hash.
func parseArgon2(s string) (passwordHash, error) {
	errForm := errors.New("its argon2id hash is not $argon2id$v=19$m=…,t=…,p=…$salt$hash within bounds")
	part := strings.Split(s, "$")
	if len(part) != 6 || part[2] != "v="+strconv.Itoa(argon2.Version) {
		return nil, errForm
	}
	cost := strings.Split(part[3], ",")
	if len(cost) != 3 {
		return nil, errForm
	}
	bounds := []struct {
		name string
		max  uint64
	}{{"m=", argon2MemoryKiB}, {"t=", argon2TimeMax}, {"p=", argon2ThreadsMax}}
	var v [3]uint64
	for i, b := range bounds {
		number, ok := strings.CutPrefix(cost[i], b.name)
		var err error
		if v[i], err = strconv.ParseUint(number, 10, 32); !ok || err != nil || v[i] == 0 || v[i] > b.max {
			return nil, errForm
		}
	}
	salt, err := base64.RawStdEncoding.DecodeString(part[4])
	if err != nil || len(salt) < saltBytesMin || len(salt) > argon2BytesMax {
		return nil, errForm
	}
	sum, err := base64.RawStdEncoding.DecodeString(part[5])
	if err != nil || len(sum) < argon2BytesMin || len(sum) > argon2BytesMax {
		return nil, errForm
	}
	return argon2Hash{memoryKiB: uint32(v[0]), timeCost: uint32(v[1]), threads: uint8(v[2]), salt: salt, sum: sum}, nil //nolint:gosec // Within bounds.
}

// logins checks credentials. Hashes cost a lot on purpose, and every call carries the
// credentials, so one that was right is remembered by a keyed digest, never by itself.
// It is safe for concurrent use.
type logins struct {
	users map[string]*user
	other *user         // Stands for a name that does not exist, so that it takes as long.
	slots chan struct{} // Bounds the hashes computed at once.
	key   []byte

	mu    sync.Mutex                  // Guards known.
	known map[[sha256.Size]byte]*user // Digests of credentials that were right.
}

func newLogins(users map[string]*user) *logins {
	l := &logins{
		users: users, slots: make(chan struct{}, concurrentHashes),
		key: make([]byte, sha256.Size), known: map[[sha256.Size]byte]*user{},
	}
	_, _ = rand.Read(l.key) // It never fails.
	names := make([]string, 0, len(users))
	for name := range users {
		names = append(names, name)
	}
	slices.Sort(names)
	l.other = users[names[0]]
	return l
}

// check returns the user of an authorization header, or nil. It fails only with ctx.
func (l *logins) check(ctx context.Context, authorization string) (*user, error) {
	mac := hmac.New(sha256.New, l.key)
	_, _ = mac.Write([]byte(authorization)) // It never fails.
	digest := [sha256.Size]byte(mac.Sum(nil))
	l.mu.Lock()
	u := l.known[digest]
	l.mu.Unlock()
	if u != nil {
		return u, nil
	}
	name, password, ok := basicCredentials(authorization)
	if !ok {
		return nil, nil //nolint:nilnil // Nobody.
	}
	u, exists := l.users[name]
	if !exists {
		u = l.other
	}
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	right := u.hash.matches(password)
	<-l.slots
	if !right || !exists {
		return nil, nil //nolint:nilnil // Nobody.
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) >= knownLoginsMax {
		clear(l.known)
	}
	l.known[digest] = u
	return u, nil
}

func basicCredentials(authorization string) (name string, password []byte, ok bool) {
	scheme, encoded, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Basic") || len(encoded) > 2*(passwordBytesMax+userNameBytesMax) {
		return "", nil, false
	}
	b, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", nil, false
	}
	n, p, ok := bytes.Cut(b, []byte(":"))
	if !ok || len(p) > passwordBytesMax {
		return "", nil, false
	}
	return string(n), p, true
}
