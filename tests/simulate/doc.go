// Package simulate runs the simulation of siptraced's spool and sinks: seed by seed, in
// as many processes as there are processors. What it does and what has to hold stands in
// the doc of cmd/siptraced/internal/simulate. It checks the simulation itself, too: that
// a seed repeats itself exactly, and that deliberate mistakes are found.
//
//	go test ./tests/simulate -v                                 # 2,000 seeds, and the mistakes
//	SIPTEST_LONG=1 go test ./tests/simulate -timeout 2h         # 100,000, mistakes searched anew
//	SIPTEST_SEEDS=1-500 go test ./tests/simulate -run TestSeeds # these
//	SIPTEST_SEEDS=17 go test ./tests/simulate -run TestSeeds -v # one, with all that happens
//
// SIPTEST_SIMULATION names a file that has the built simulation, or gets it.
package simulate
