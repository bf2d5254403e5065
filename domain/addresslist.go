package domain

import (
	"net/netip"
	"strings"
)

// addressListBytesMax bounds the text of an [AddressList].
const addressListBytesMax = 16 << 10

// AddressList says from which network addresses something may come. The zero AddressList
// allows every address.
type AddressList struct {
	text   string
	ranges []addressRange
	closed bool // Nobody is allowed: the text could not be read.
}

// addressRange is the addresses from first to last, both of one family.
type addressRange struct{ first, last netip.Addr }

// ParseAddressList reads addresses separated by commas: IPv4 or IPv6, single (192.0.2.7), a
// range (192.0.2.1-192.0.2.9) or a network (2001:db8::/32, whose bits beyond the prefix are
// ignored). An IPv4 address that is written as IPv6 (::ffff:192.0.2.7) is the IPv4 address.
// Zones are refused. Empty text is the empty list. The error is [Invalid] and names no
// field.
func ParseAddressList(text string) (AddressList, error) {
	if len(text) > addressListBytesMax {
		return AddressList{}, Errorf(Invalid, "is longer than %d bytes", addressListBytesMax).WithMessageCode("too_long")
	}
	if strings.TrimSpace(text) == "" {
		return AddressList{}, nil
	}
	var l AddressList
	var canonical []string
	for item := range strings.SplitSeq(text, ",") {
		r, as, ok := parseAddresses(strings.TrimSpace(item))
		if !ok {
			return AddressList{}, Errorf(Invalid, "%q is not an IP address, a range of addresses or a network", shortened(item)).
				WithMessageCode("invalid_address")
		}
		l.ranges, canonical = append(l.ranges, r), append(canonical, as)
	}
	l.text = strings.Join(canonical, ",")
	return l, nil
}

// recordedAddresses is ParseAddressList for text that was checked before it was recorded.
// What cannot be read all the same lets nobody through.
func recordedAddresses(text string) AddressList {
	l, err := ParseAddressList(text)
	if err != nil {
		return AddressList{text: text, closed: true}
	}
	return l
}

// shortened keeps an error's text short, whatever was sent.
func shortened(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// parseAddresses reads one item of a list, and returns its canonical text.
func parseAddresses(item string) (addressRange, string, bool) {
	if from, to, ok := strings.Cut(item, "-"); ok {
		first, firstOK := parseAddress(strings.TrimSpace(from))
		last, lastOK := parseAddress(strings.TrimSpace(to))
		if !firstOK || !lastOK || first.Is4() != last.Is4() || last.Less(first) {
			return addressRange{}, "", false
		}
		return addressRange{first, last}, first.String() + "-" + last.String(), true
	}
	if strings.Contains(item, "/") {
		return parseNetwork(item)
	}
	a, ok := parseAddress(item)
	return addressRange{a, a}, a.String(), ok
}

func parseAddress(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

func parseNetwork(s string) (addressRange, string, bool) {
	const mappedBits = 96 // ::ffff:0:0/96 is all of IPv4.
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return addressRange{}, "", false
	}
	if p.Addr().Is4In6() {
		if p.Bits() < mappedBits {
			return addressRange{}, "", false // Neither all IPv4 nor IPv6.
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits)
	}
	p = p.Masked()
	return addressRange{p.Addr(), lastOf(p)}, p.String(), true
}

// lastOf returns the last address of a masked network.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for i := p.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	a, ok := netip.AddrFromSlice(bytes)
	if !ok {
		panic("domain: an address has another length than itself")
	}
	return a
}

// Allows reports whether a is in the list, or the list is empty. An address that nobody
// knows (the zero one) is in no list.
func (l AddressList) Allows(a netip.Addr) bool {
	if l.closed {
		return false
	}
	if l.text == "" {
		return true
	}
	a = a.WithZone("").Unmap()
	for _, r := range l.ranges {
		if a.BitLen() == r.first.BitLen() && !a.Less(r.first) && !r.last.Less(a) {
			return true
		}
	}
	return false
}

// Empty reports whether the list allows every address.
func (l AddressList) Empty() bool { return l.text == "" && !l.closed }

// String returns the canonical text, which [ParseAddressList] reads as the same list.
func (l AddressList) String() string { return l.text }
