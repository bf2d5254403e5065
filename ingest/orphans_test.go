package ingest_test

import (
	"testing"

	"example.com/keytrail/domain"
)

// TestTheKeysOfARemovedUserAreDeletedAndLaterOnesAreNot: by keytrail itself, because of the
// removal; a key that the user makes after he came back is another matter.
func TestTheKeysOfARemovedUserAreDeletedAndLaterOnesAreNot(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.member("User-x")
	before := n.dirs.KeysOf(n.boot.Account, "User-x")
	n.change(domain.RemoveMember{IAMID: "User-x"})
	again := n.member("User-x")
	if err := n.reconciler(n.commands, 0).Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	events := n.events(domain.KeyStream(before[0].ID))
	last := events[len(events)-1]
	if last.Type != domain.TypeKeyDeleted || last.Meta.Initiator.IAMID != domain.SystemIAMID || last.Meta.CausationID == "" {
		t.Errorf("the key of before ends with %s by %+v", last.Type, last.Meta)
	}
	n.must(200, n.call(again, "GET", "/v1/apikeys", nil))
	n.soundSlots("after it", domain.KeyLimitDefault)
}
