package main

// streamFaults are faults in the Streams service. The conformance suite, which knows
// nothing of the server, has to see each of them.
func streamFaults() []mutant {
	suite := testSuite{name: "eventlogtest", pkg: "internal/eventlog", run: "^TestEmbeddedStoreKeepsTheContract$"}
	var out []mutant
	for _, group := range [][]mutant{appendFaults(), limitFaults(), readFaults(), subscribeFaults(), linkFaults()} {
		for _, m := range group {
			m.suite = suite
			out = append(out, m)
		}
	}
	return out
}

func one(name, old, with string) mutant { return mutant{name: name, edits: []edit{{old, with}}} }

func appendFaults() []mutant {
	return []mutant{
		one("expected revision not checked", "return h.exists && h.last == e.rev", "return true"),
		one("NoStream not checked", "return !h.visible()\n", "return true\n"),
		one("StreamExists not checked", "return meta.exists, err", "return meta.exists || true, err"),
		one("StreamExists refuses a stream with metadata alone", "return meta.exists, err", "return meta.exists && false, err"),
		one("StreamExists takes a deleted stream", "r.expect.kind == expectExists && h.limits.softDeleted()", "false"),
		one("idempotent retry not seen", "if r.op == opAppend && g.maybeRepeat(r, h) {", "if false && g.maybeRepeat(r, h) {"),
		one("idempotent retry with any not seen", "return w.find(ctx, s, r.events)", "return result{}, false, nil"),
		one("retry with NoStream not seen", "case expectNoStream:\n\t\tstart = 0", "case expectNoStream:\n\t\treturn result{}, false, nil"),
		one("a retry is judged by its first event alone", "return same && i < len(events), nil", "i = len(events)\n\t\treturn false, nil"),
		one("known and unknown events together are stored", "if !ok {\n\t\t\treturn result{wrong: true, current: s.head}, true, nil", "if !ok {\n\t\t\treturn result{}, false, nil"),
		one("append size not enforced", "if sizeBytes += e.sizeBytes(); sizeBytes <= s.appendBytesMax {\n\t\t\tr.events = append(r.events, e)\n\t\t}\n\t}\n\tif sizeBytes > s.appendBytesMax {",
			"sizeBytes += e.sizeBytes()\n\t\tr.events = append(r.events, e)\n\t}\n\tif false {"),
		one("an append over the limit is stored in part", "if sizeBytes > s.appendBytesMax {", "if false {"),
		one("an append of many stores all but the last", "for i := range events {\n\t\tat.rev", "for i := range max(1, len(events)-1) {\n\t\tat.rev"),
		one("event ids are made anew", `return seen[1] && p.typ != ""`, "p.id = newID()\n\treturn seen[1] && p.typ != \"\""),
		one("content type is lost", `p.json = string(content) == "application/json"`, `p.json = len(content) > 0`),
		one("custom metadata is lost", "p.meta = wirefield.NoneIfEmpty(v.Bytes)", "p.meta = nil"),
		one("a wrong revision names another actual one", "AppendResp_WrongExpectedVersion_CurrentRevision{CurrentRevision: h.last}", "AppendResp_WrongExpectedVersion_CurrentRevision{CurrentRevision: h.last + 1}"),
		one("a wrong revision is answered as success", "case res.wrong:\n\t\treturn in.SendAndClose(wrongVersion(r.expect, res.current))", "case false:\n\t\treturn in.SendAndClose(wrongVersion(r.expect, res.current))"),
		one("positions are dense", "at.pos = g.last + uint64(", "at.pos = g.last + 1 + 0*uint64("),
		one("delete ignores the expected revision", "if err := s.access.may(ctx, actDelete, name); err != nil {", "expect = expected{kind: expectAny}\n\tif err := s.access.may(ctx, actDelete, name); err != nil {"),
		one("a tombstone is not final", "func (h head) tombstoned() bool { return h.exists && h.last == revisionMax }", "func (h head) tombstoned() bool { return false }"),
		one("a tombstone says another reason", `"exception", "stream-deleted", "stream-name", stream)`, `"exception", "stream-gone", "stream-name", stream)`),
		one("a tombstone does not reach the metadata", "return of.tombstoned(), err", "return of.tombstoned() && false, err"),
	}
}

func limitFaults() []mutant {
	return []mutant{
		one("$maxCount ignored", "maxCount: positive(m.MaxCount)", "maxCount: positive(nil)"),
		one("$maxCount keeps one more", "s.high-uint64(n.Int64)+1) //", "s.high-uint64(n.Int64)) //"),
		one("$maxAge ignored", "maxAgeS: positive(m.MaxAge)", "maxAgeS: positive(nil)"),
		one("$tb ignored", "if tb := limits.trimBelow; tb.Valid {", "if tb := limits.trimBelow; tb.Valid && limits.softDeleted() {"),
		one("$tb hides one more", "s.low = max(s.low, uint64(tb.Int64))", "s.low = max(s.low, uint64(tb.Int64)+1)"),
		one("a soft delete does not hide", "end, err := g.trim(ctx, r.stream, math.MaxInt64)", "end, err := g.trim(ctx, r.stream, math.MaxInt64-math.MaxInt64)"),
		one("a stream that comes back shows all again", "if h.limits.softDeleted() { // Writing", "if h.limits.softDeleted() { // Writing\n\t\th.last = h.last + 0\n\t\tif _, err := g.trim(ctx, r.stream, 0); err != nil {\n\t\t\treturn result{err: err}\n\t\t}\n\t\th = g.heads[r.stream]\n\t}\n\tif false { // Writing"),
		one("a stream that comes back stays hidden", "if h.limits.softDeleted() { // Writing", "if false { // Writing"),
		one("a soft delete forgets the other metadata", "if json.Unmarshal(old, &metadata) != nil || metadata == nil {", "if json.Unmarshal(old, &metadata) != nil || true {"),
		one("a metadata stream shows all its events", "if isMetaStream(name) && !limits.maxCount.Valid {", "if false {"),
	}
}

func readFaults() []mutant {
	return []mutant{
		one("a read gives one more than asked for", "send.left = o.GetCount()", "send.left = o.GetCount() + 1"),
		one("a read gives all", "send.left = o.GetCount()", "send.left = max(o.GetCount(), 1) << 20"),
		one("backwards is forwards", "back := o.GetReadDirection() == api.ReadReq_Options_Backwards", "back := false"),
		one("the log backwards is inclusive", "back && e.pos >= pos", "back && e.pos > pos"),
		one("the log forwards is exclusive", "!back && e.pos < pos", "!back && e.pos <= pos"),
		one("a stream forwards is exclusive", "from = v.Revision\n", "from = v.Revision + 1\n"),
		one("a read of the end forwards gives the last", "from = st.high\n\t\tif !back {\n\t\t\treturn nil", "from = st.high\n\t\tif false {\n\t\t\treturn nil"),
		one("a missing stream is an empty one", "if !st.visible() {\n\t\treturn send", "if false {\n\t\treturn send"),
		one("events of the system are not in the log", "!f.match(e) {\n\t\t\tcontinue", "!f.match(e) || e.stream[0] == '$' {\n\t\t\tcontinue"),
		one("a tombstone has another name", `typ: "$streamDeleted"`, `typ: "$deleted"`),
	}
}

func subscribeFaults() []mutant {
	return []mutant{
		one("a subscription to $all resumes inclusively", "a.pos = v.Position.GetCommitPosition()", "a.pos = max(v.Position.GetCommitPosition(), 1) - 1"),
		one("a subscription to a stream resumes inclusively", "next = min(v.Revision, revisionMax) + 1", "next = min(v.Revision, revisionMax)"),
		one("a subscription from the end gets the last", "case *api.ReadReq_Options_StreamOptions_End:\n\t\tnext = st.next()", "case *api.ReadReq_Options_StreamOptions_End:\n\t\tnext = max(st.next(), 1) - 1"),
		one("no checkpoints", "a.told = a.pos\n\treturn checkpoint(a.send.out, a.pos)", "return nil"),
		one("a checkpoint when catching up is done, and never again", "if a.considered++; a.considered < a.filter.every {", "if true {"),
		one("a checkpoint ahead of what was looked at", "return checkpoint(a.send.out, a.pos)", "return checkpoint(a.send.out, a.pos+1<<30)"),
		one("no CaughtUp on $all", "return a.streams.caughtUp(a.send.out, place)", "return nil"),
		one("no CaughtUp on a stream", "if err := s.caughtUp(send.out, place); err != nil {", "if err := error(nil); err != nil {"),
		one("$all never live", "if err := a.arrive(); err != nil {\n\t\t\t\treturn err\n\t\t\t}", "if err := a.arrive(); err != nil {\n\t\t\t\treturn err\n\t\t\t}\n\t\t\t<-ctx.Done()"),
		one("a stream never live", "if err := s.caughtUp(send.out, place); err != nil {\n\t\t\t\treturn err\n\t\t\t}", "if err := s.caughtUp(send.out, place); err != nil {\n\t\t\t\treturn err\n\t\t\t}\n\t\t\t<-ctx.Done()"),
		one("a block is delivered twice", "if f.pos <= a.pos {\n\t\t\t\tcontinue", "if false {\n\t\t\t\tcontinue"),
		one("the last event of a block is skipped", "for i := range a.frames {", "for i := range max(1, len(a.frames)-1) {\n\t\t\ta.pos = max(a.pos, a.frames[len(a.frames)-1].pos*0)"),
		one("a follower does not see the tombstone", "if st.tombstoned() {\n\t\t\treturn failDeleted(ctx, name)\n\t\t}\n\t\terr := s", "if false {\n\t\t\treturn failDeleted(ctx, name)\n\t\t}\n\t\terr := s"),
		one("expressions match everything", "return f.regex.Match(v)", "return true"),
		one("prefixes match everything", "if bytes.HasPrefix(v, p) {", "if bytes.HasPrefix(v, p) || true {"),
		one("only the first prefix counts", "for _, p := range x.GetPrefix() {", "for _, p := range x.GetPrefix()[:1] {"),
		one("a filter by type looks at streams", "if f.byType {", "if false {"),
		one("a subscription hides events of the system", "if a.filter.match(f) {", "if a.filter.match(f) && f.stream[0] != '$' {"),
	}
}

func linkFaults() []mutant {
	return []mutant{
		one("links not resolved", "link := s.resolve && string(f.typ) == linkType", "link := false"),
		one("links always resolved", "link := s.resolve && string(f.typ) == linkType", "link := string(f.typ) == linkType"),
		one("a link without a target is shown as an event", "e.Link, e.Event = e.GetEvent(), nil", "e.Link = e.GetEvent()"),
		one("a link resolves to the event before", "target, ok, err := s.streams.reader.event(ctx, name, rev)", "target, ok, err := s.streams.reader.event(ctx, name, max(rev, 1)-1)"),
	}
}

// serverFaults are faults in what the conformance suite cannot reach: users, batch
// appends, bounds. The server's own tests have to see them.
func serverFaults() []mutant {
	suite := testSuite{name: "the server's tests", pkg: target, run: "^Test(Only|Access|ALink|Users|Address|Batch|CloseEndsABatch|Filters|Counted|Ids|Trailers|Deadline)"}
	out := []mutant{
		one("every user is an administrator", "func (u *user) admin() bool { return", "func (u *user) admin() bool { return true ||"),
		one("any password is right", "if !right || !exists {", "if !right && false || !exists {"),
		one("an unknown user has the first one's password", "if !right || !exists {", "if !right || !exists && false {"),
		one("nobody need log in", "if len(given) != 1 {\n\t\treturn nil, status", "if len(given) != 1 {\n\t\treturn a.logins.other, nil\n\t}\n\tif false {\n\t\treturn nil, status"),
		one("a link shows what may not be read", "if ok, err := s.streams.access.mayFollow(ctx, name); err != nil || !ok {", "if ok, err := s.streams.access.mayFollow(ctx, name); false && !ok {"),
		one("everybody may read the log", "if stream[0] == '$' {", "if stream[0] == '$' && stream != allStream {"),
		one("everybody may use the streams of the system", "if stream[0] == '$' {", "if stream == allStream {"),
		one("a list that cannot be read lets all in", "return []string{adminGroup}, nil //", "return defaults, nil //"),
		one("lists are ignored", "if roles, ok := list[act]; ok {", "if roles, ok := list[act]; ok && false {"),
		one("metadata is read by the list for events", "act = actReadMeta\n", "act = actRead\n"),
		one("ids of a batch are made anew", "return proposed{id: id,", "id = newID()\n\treturn proposed{id: id,"),
		one("the content type of a batch is lost", `json: content == "application/json"`, `json: content != ""`),
		one("the custom metadata of a batch is lost", "meta: m.GetCustomMetadata()", "meta: nil"),
		one("batch appends are not checked", "err = b.streams.access.may(ctx, actWrite, name)", "err = nil"),
		one("an address for all may be insecure", "case c.Insecure && !loopback(c.Listen):", "case false:"),
		one("an address may be left open unsaid", "case !secure && !c.Insecure:", "case false:"),
		one("a users file that others can change is taken", "case info.Mode().Perm()&usersFileWritable != 0:", "case false:"),
		one("hashes may cost anything", "if cost > bcryptCostMax {", "if false {"),
		one("a batch ignores its deadline", "left = min(left, d.Deadline.AsDuration())", "left = min(left, d.Deadline.AsDuration()+batchDeadlineMax)"),
		one("a batch ignores the limit of an append", "case a.bytes > b.streams.appendBytesMax:", "case false:"),
		one("a batch is open without end", "case len(b.open) >= batchOpenMax:", "case false:"),
		one("a batch keeps the server from closing", "case <-b.streams.closing:\n\t\t\treturn errClosing()\n\t\tcase <-ctx.Done():\n\t\t\treturn status", "case <-ctx.Done():\n\t\t\treturn status"),
		one("expressions may cost anything", "if regexSteps(tree) > regexStepsMax {", "if regexSteps(tree) > regexStepsMax<<40 {"),
		one("a filter of a stream is ignored", "if o.GetFilter() != nil {\n\t\t\treturn", "if false {\n\t\t\treturn"),
		one("ids are never text", "if s.text {", "if false {"),
	}
	for i := range out {
		out[i].suite = suite
	}
	return out
}
