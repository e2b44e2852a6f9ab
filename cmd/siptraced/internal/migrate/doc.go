// Package migrate works out how a proxy that runs the siptrace module hands
// storing and mirroring over to siptraced.
//
//	plan, err := migrate.New("kamailio.cfg", migrate.Options{})
//	fmt.Print(plan.Patch()) // for patch -p0, in plan.Dir
//	fmt.Print(plan.YAML())  // siptraced.yaml
//	fmt.Print(plan.Notes()) // what keeps working, what moves, what can't be seen
//
// The proxy keeps deciding which messages are traced where its script does so,
// and mirrors them as HEP3; the rest moves. Which sinks a message has in the
// module was measured with Kamailio 5.6.3: the traffic of trace_mode goes by its
// bits alone, that of sip_trace() by trace_to_database, hep_mode_on and the
// address it names.
//
// What it leaves out: writing files, KEMI scripts (in Lua, Python, ...), and
// lines within an #!ifdef that doesn't hold.
package migrate
