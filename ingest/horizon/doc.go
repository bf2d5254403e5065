// Package horizon seals, archives and cuts ranges of usage streams that are older than
// their class's horizon. Lifecycle streams are never cut.
//
// The order is: archive (where the class says so), seal, decide the cut, cut. Each step is
// durable before the next begins, each is found done when it is repeated, and each names
// the exact revision that it goes by, so any number of keepers may work and any of them
// may die anywhere. Nothing is cut that is not sealed and, where the class keeps archives,
// whole in the archive at the moment of the cut; nothing above a [Guard]; nothing under a
// legal hold. It never cuts the newest event of a stream and frees nothing itself:
// scavenging the log does.
package horizon
