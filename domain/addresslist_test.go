package domain_test

import (
	"net/netip"
	"strings"
	"testing"

	"example.com/keytrail/domain"
)

func TestAddressLists(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text, canonical string
		in, out               []string
		bad                   bool
	}{
		{name: "nothing allows all", text: " ", in: []string{"192.0.2.7", "::1"}},
		{name: "one address", text: "192.0.2.7", canonical: "192.0.2.7", in: []string{"192.0.2.7", "::ffff:192.0.2.7"}, out: []string{"192.0.2.8", "::c000:207", "::1"}},
		{name: "one address, written as IPv6", text: "::ffff:192.0.2.7", canonical: "192.0.2.7", in: []string{"192.0.2.7", "::ffff:192.0.2.7"}},
		{name: "a network", text: "192.0.2.77/28", canonical: "192.0.2.64/28", in: []string{"192.0.2.64", "192.0.2.79"}, out: []string{"192.0.2.63", "192.0.2.80"}},
		{name: "a network, written as IPv6", text: "::ffff:10.0.0.0/104", canonical: "10.0.0.0/8", in: []string{"10.255.255.255"}, out: []string{"11.0.0.0", "9.255.255.255"}},
		{name: "a range", text: "192.0.2.250 - 192.0.3.5", canonical: "192.0.2.250-192.0.3.5", in: []string{"192.0.2.250", "192.0.2.255", "192.0.3.0", "192.0.3.5"}, out: []string{"192.0.2.249", "192.0.3.6"}},
		{name: "a range of one", text: "::1-::1", canonical: "::1-::1", in: []string{"::1"}, out: []string{"::2"}},
		{name: "a range across the forms of IPv4", text: "::ffff:10.0.0.1-10.0.0.3", canonical: "10.0.0.1-10.0.0.3", in: []string{"10.0.0.2"}},
		{name: "IPv6", text: "2001:DB8::/33", canonical: "2001:db8::/33", in: []string{"2001:db8:7fff:ffff:ffff:ffff:ffff:ffff"}, out: []string{"2001:db8:8000::", "1.2.3.4"}},
		{name: "an address with a zone is judged without it", text: "fe80::1", canonical: "fe80::1", in: []string{"fe80::1%eth0"}},
		{name: "all IPv4", text: "0.0.0.0/0", canonical: "0.0.0.0/0", in: []string{"255.255.255.255", "0.0.0.0"}, out: []string{"::1"}},
		{name: "all IPv6", text: "::/0", canonical: "::/0", in: []string{"::1"}, out: []string{"::ffff:1.2.3.4", "1.2.3.4"}},
		{name: "several", text: "10.0.0.0/8,192.0.2.7 ,::1", canonical: "10.0.0.0/8,192.0.2.7,::1", in: []string{"10.1.1.1", "192.0.2.7", "::1"}, out: []string{"11.1.1.1"}},
		{name: "a hole in the list", text: "10.0.0.1,,10.0.0.2", bad: true},
		{name: "a comma at the end", text: "10.0.0.1,", bad: true},
		{name: "a zone", text: "fe80::1%eth0", bad: true},
		{name: "a zone in a range", text: "fe80::1%eth0-fe80::2%eth0", bad: true},
		{name: "a zone in a network", text: "fe80::%eth0/64", bad: true},
		{name: "a range that goes back", text: "10.0.0.2-10.0.0.1", bad: true},
		{name: "a range of two families", text: "10.0.0.1-::1", bad: true},
		{name: "a range of three", text: "10.0.0.1-10.0.0.2-10.0.0.3", bad: true},
		{name: "a range of networks", text: "10.0.0.0/8-11.0.0.0/8", bad: true},
		{name: "neither all IPv4 nor IPv6", text: "::ffff:0.0.0.0/95", bad: true},
		{name: "too many bits", text: "10.0.0.0/33", bad: true},
		{name: "octal", text: "010.0.0.1", bad: true},
		{name: "a name", text: "localhost", bad: true},
		{name: "a port", text: "10.0.0.1:80", bad: true},
		{name: "too long", text: strings.Repeat("10.0.0.1,", 2000) + "10.0.0.1", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, err := domain.ParseAddressList(tt.text)
			if tt.bad {
				if domain.CodeOf(err) != domain.Invalid || err == nil {
					t.Errorf("err = %v, want invalid", err)
				}
				return
			}
			if err != nil || l.String() != tt.canonical {
				t.Fatalf("%q, %v; want %q", l, err, tt.canonical)
			}
			for _, a := range tt.in {
				if !l.Allows(netip.MustParseAddr(a)) {
					t.Errorf("%s is refused", a)
				}
			}
			for _, a := range tt.out {
				if l.Allows(netip.MustParseAddr(a)) {
					t.Errorf("%s is allowed", a)
				}
			}
		})
	}
}

// TestAnAddressThatNobodyKnowsIsInNoList but the empty one.
func TestAnAddressThatNobodyKnowsIsInNoList(t *testing.T) {
	t.Parallel()
	l, err := domain.ParseAddressList("0.0.0.0/0,::/0")
	if err != nil || l.Allows(netip.Addr{}) || l.Empty() {
		t.Errorf("%v: allows the unknown address: %t", err, l.Allows(netip.Addr{}))
	}
	if none := (domain.AddressList{}); !none.Allows(netip.Addr{}) || !none.Empty() {
		t.Error("the empty list refuses")
	}
}

// TestAddressesThatCannotBeReadLetNobodyThrough: a later version may have written them.
func TestAddressesThatCannotBeReadLetNobodyThrough(t *testing.T) {
	t.Parallel()
	a := account(t, acme()...).Evolve(domain.Recorded{Event: domain.MemberSettingsSet{Account: "acct1", IAMID: "User-2", New: domain.MemberSettings{AllowedAddresses: "geo:DE"}}})
	m, _ := a.Member("User-2")
	if m.Addresses.Allows(netip.MustParseAddr("192.0.2.7")) || m.Addresses.Empty() {
		t.Error("addresses that cannot be read allow one")
	}
}

// FuzzAddressList: no text crashes the reader; what is read has one form, which says the same.
func FuzzAddressList(f *testing.F) {
	for _, s := range []string{"", "1.2.3.4", "::/0", "::ffff:1.2.3.4/97", "1.2.3.4-1.2.3.9,fe80::%1/10", "a,,-/"} {
		f.Add(s, "1.2.3.5")
	}
	f.Fuzz(func(t *testing.T, text, address string) {
		l, err := domain.ParseAddressList(text)
		if err != nil {
			return
		}
		again, err := domain.ParseAddressList(l.String())
		if err != nil || again.String() != l.String() {
			t.Fatalf("%q became %q, then %q, %v", text, l, again, err)
		}
		if a, err := netip.ParseAddr(address); err == nil && (l.Allows(a) != again.Allows(a) || l.Allows(a) != l.Allows(a.Unmap())) {
			t.Fatalf("%q and %q differ on %s", l, again, a)
		}
	})
}
