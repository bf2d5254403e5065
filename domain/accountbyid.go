package domain

import (
	"iter"
	"maps"
)

const (
	// byIDFew is up to how many entries a byID is one map, which is copied whole.
	byIDFew = 64
	// byIDParts is into how many parts a larger one is cut.
	byIDParts = 256
)

// byID is a map by identity that never changes: with and without return another, which
// shares all but one of its parts. So a fact about one of many thousand members copies some
// dozens of them. The zero byID is empty.
type byID[V any] struct {
	few   map[IAMID]V // While parts is nil.
	parts *[byIDParts]map[IAMID]V
}

// partOf returns the part that id is in: FNV-1a, by its lowest byte.
func partOf(id IAMID) int {
	h := uint32(2166136261)
	for i := range len(id) {
		h = (h ^ uint32(id[i])) * 16777619
	}
	return int((h ^ h>>16) % byIDParts)
}

// holding returns the one map that id is in, if it is in m.
func (m byID[V]) holding(id IAMID) map[IAMID]V {
	if m.parts == nil {
		return m.few
	}
	return m.parts[partOf(id)]
}

func (m byID[V]) get(id IAMID) (V, bool) {
	v, ok := m.holding(id)[id]
	return v, ok
}

// with returns m in which id is v.
func (m byID[V]) with(id IAMID, v V) byID[V] {
	part := maps.Clone(m.holding(id))
	if part == nil {
		part = make(map[IAMID]V, 1)
	}
	part[id] = v
	return m.replace(id, part)
}

// without returns m without id.
func (m byID[V]) without(id IAMID) byID[V] {
	if _, ok := m.get(id); !ok {
		return m
	}
	part := maps.Clone(m.holding(id))
	delete(part, id)
	return m.replace(id, part)
}

// replace returns m with another map in the place of that which id is in.
func (m byID[V]) replace(id IAMID, part map[IAMID]V) byID[V] {
	if m.parts == nil && len(part) <= byIDFew {
		return byID[V]{few: part}
	}
	var parts [byIDParts]map[IAMID]V
	if m.parts != nil {
		parts = *m.parts
		parts[partOf(id)] = part
		return byID[V]{parts: &parts}
	}
	for id, v := range part {
		i := partOf(id)
		if parts[i] == nil {
			parts[i] = make(map[IAMID]V, 1)
		}
		parts[i][id] = v
	}
	return byID[V]{parts: &parts}
}

// all gives everything in m, in no order.
func (m byID[V]) all() iter.Seq2[IAMID, V] {
	if m.parts == nil {
		return maps.All(m.few)
	}
	return func(yield func(IAMID, V) bool) {
		for _, part := range m.parts {
			for id, v := range part {
				if !yield(id, v) {
					return
				}
			}
		}
	}
}
