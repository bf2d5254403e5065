package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// allRole is everybody who is logged in.
	allRole = "$all"
	// allStream names the log itself where access to it is asked for.
	allStream = "$all"
)

// action is what is done to a stream.
type action int

const (
	actRead action = iota
	actWrite
	actDelete
	actReadMeta
	actWriteMeta
)

// access decides who may do what, as EventStoreDB does: a stream's $acl, and where it
// has none, everybody who is logged in for ordinary streams and administrators for those
// that begin with $, the log itself among them. A nil access allows everything: who can
// open the unix socket owns the files too.
type access struct {
	logins *logins
	reader *reader
}

// caller returns who calls.
func (a *access) caller(ctx context.Context) (*user, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	given := md.Get("authorization")
	if len(given) != 1 {
		return nil, status.Error(codes.Unauthenticated, "the event store wants a user and a password")
	}
	u, err := a.logins.check(ctx, given[0])
	switch {
	case err != nil:
		return nil, status.FromContextError(err).Err()
	case u == nil:
		return nil, status.Error(codes.Unauthenticated, "the user or the password is wrong")
	}
	return u, nil
}

// may returns nil if the caller may do act to stream, or the error to answer with.
func (a *access) may(ctx context.Context, act action, stream string) error {
	if a == nil {
		return nil
	}
	u, err := a.caller(ctx)
	if err != nil {
		return err
	}
	ok, err := a.allows(ctx, u, act, stream)
	if err != nil {
		return failRead(err)
	}
	if !ok {
		return fail(ctx, codes.PermissionDenied, "Access Denied", "exception", "access-denied")
	}
	return nil
}

// mayFollow reports whether the caller may read the stream that a link points at.
func (a *access) mayFollow(ctx context.Context, stream string) (bool, error) {
	if a == nil {
		return true, nil
	}
	u, err := a.caller(ctx)
	if err != nil {
		return false, err
	}
	return a.allows(ctx, u, actRead, stream)
}

func (a *access) allows(ctx context.Context, u *user, act action, stream string) (bool, error) {
	if u.admin() {
		return true, nil
	}
	if isMetaStream(stream) {
		switch act {
		case actRead:
			act = actReadMeta
		case actWrite:
			act = actWriteMeta
		case actDelete, actReadMeta, actWriteMeta:
			return false, nil
		}
		stream = stream[2:]
	}
	roles, err := a.roles(ctx, act, stream)
	return slices.ContainsFunc(roles, u.has), err
}

// roles returns who may do act to stream.
func (a *access) roles(ctx context.Context, act action, stream string) ([]string, error) {
	defaults := []string{allRole}
	if stream[0] == '$' {
		defaults = []string{adminGroup}
	}
	s, err := a.reader.open(ctx, "$$"+stream)
	if err != nil || !s.visible() {
		return defaults, err
	}
	var data []byte
	err = a.reader.walk(ctx, s, s.high, true, func(f frame) (bool, error) {
		var err error
		data, err = f.data()
		return false, err
	})
	if err != nil {
		return nil, err
	}
	list, err := parseACL(data)
	if err != nil {
		return []string{adminGroup}, nil //nolint:nilerr // Whom it was meant to keep out is not known: all but administrators.
	}
	if roles, ok := list[act]; ok {
		return roles, nil
	}
	return defaults, nil
}

var errACL = errors.New("$acl is not an object of roles")

// parseACL reads the $acl of a stream's metadata. What it does not name is not in the
// result. Metadata that is no JSON object has none.
func parseACL(data []byte) (map[action][]string, error) {
	var m struct {
		ACL json.RawMessage `json:"$acl"`
	}
	if json.Unmarshal(data, &m) != nil || len(m.ACL) == 0 || string(m.ACL) == "null" {
		return nil, nil //nolint:nilnil,nilerr // As EventStoreDB reads it: no list.
	}
	var entries map[string]json.RawMessage
	if json.Unmarshal(m.ACL, &entries) != nil {
		return nil, errACL
	}
	out := map[action][]string{}
	for key, act := range map[string]action{"$r": actRead, "$w": actWrite, "$d": actDelete, "$mr": actReadMeta, "$mw": actWriteMeta} {
		entry, ok := entries[key]
		if !ok || string(entry) == "null" {
			continue
		}
		var one string
		var many []string
		switch {
		case json.Unmarshal(entry, &one) == nil:
			many = []string{one}
		case json.Unmarshal(entry, &many) != nil:
			return nil, errACL
		}
		out[act] = many
	}
	return out, nil
}
