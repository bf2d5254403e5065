// Package faults does to a running keytrail what the world does to it: it cuts, mutes and
// slows connections, fills disks, makes calls to the disk fail or wait, stops and kills
// processes, and moves the clock. The torture test drives it.
//
// Nothing here runs inside a server: faults come from outside, through the operating
// system. The one exception is the wall clock, which cannot be moved for one process: a
// build with the tag 'faults' reads its offset from a file ([ClockEnv]).
//
// What this machine cannot do (mount a file system, trace a process) is reported as
// [ErrUnsupported] with the reason, never passed over.
package faults

import "errors"

// ErrUnsupported says that this machine cannot make the fault; the text says why.
var ErrUnsupported = errors.New("this machine cannot make the fault")
