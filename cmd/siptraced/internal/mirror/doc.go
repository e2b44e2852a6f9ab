// Package mirror sends what was taken in onwards: as HEP 1, 2, 3 or as SIP
// duplicates with X-Siptrace headers, over UDP, TCP or TLS, to any number of
// destinations. Each has a reader of the spool of its own, so that none holds
// up another, or the database, or the intake.
//
//	m, err := mirror.Open(ctx, cfg, spool, counters, logger)
//	m.Start()
//	m.EnsureDestination("sip:192.0.2.9:9060;transport=tcp") // a rule named it: before Put
//	m.SetDuplicates(uris)                        // duplicate_uri changed
//	err = m.Stop(ctx)
//
// Over TCP and TLS a message counts as sent when the peer acknowledged it, by
// its TCP or, where it is another siptraced, by answering a HEP3 keep-alive.
// What is not acknowledged when a connection ends is sent again over the next
// one, so that an outage costs nothing within the bounds in bytes and age.
// Over UDP nobody knows: a message counts as sent when the kernel took it.
//
// What it leaves out: which message goes where (package pipeline and the
// rules), and reading of settings (package config).
package mirror
