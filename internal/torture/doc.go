// Package torture holds the test that writes to keytrail while everything around it goes
// wrong, and counts. It drives the program that users run, from outside; there is no code
// here but tests.
//
// An episode runs one arrangement of processes (one process; on small disks; with stores
// of their own; several nodes) and a list of steps, all drawn from a printed seed. In each
// step writers are at work while one fault is made and lifted. Then the server must take
// writes again without being restarted, 'verify projections' must find nothing, every
// write that was acknowledged must be there exactly once, and one whose outcome is unknown
// at most once.
//
// The first failure ends the episode, names seed, episode and step, and keeps the data
// folder. What was tried is printed as a table at the end, which docs/reliability.md holds.
package torture
