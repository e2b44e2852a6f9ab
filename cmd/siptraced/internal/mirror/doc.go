// Package mirror sends what was taken in onwards: as HEP 1, 2, 3 or as SIP
// duplicates with X-Siptrace headers, over UDP, TCP or TLS, to any number of
// destinations. Each is a Sink of the spool, so that none holds up another, or
// the database, or the intake.
//
//	m, err := mirror.Open(ctx, cfg, spool, counters, logger)
//	m.EnsureDestination("sip:192.0.2.9:9060;transport=tcp") // a rule named it: before Put
//	err = m.Apply(ctx, next)                                // the configuration changed
//	m.Stop(ctx)
//
// Over TCP and TLS a message counts as sent when the peer acknowledged it, by
// its TCP or, where it is another siptraced, by answering a HEP3 keep-alive.
// What is not acknowledged when a connection ends is sent again over the next
// one, so that an outage costs nothing within the bounds in bytes and age.
// Over UDP nobody knows: a message counts as sent when the kernel took it.
//
// Who owns what: a sender and its connection belong to the goroutine of their
// spool.Consumer. Settings are replaced as a whole (sink.settings) and read there
// before each batch. Locks are taken in the order Mirrors.applying, Mirrors.mu,
// and then those of the spool, of a resolver, or of the counters, one at a time.
// Nothing waits for I/O while it holds Mirrors.mu; EnsureDestination takes no
// other lock, and none at all for a URI that it knows.
//
// Not included: which message goes where (package pipeline and the rules), the
// reading of settings (package config), and backlog, retries and backoff (package
// spool).
package mirror
