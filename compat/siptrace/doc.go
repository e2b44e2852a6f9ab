// Package siptrace is the brain of Kamailio's siptrace module without its
// hands: the record of one traced message, the module's parameters with their
// types, defaults and checks, and the rules by which a message becomes a row
// of the sip_trace table.
//
//	p := siptrace.DefaultParams()
//	err := p.Set("trace_mode", int64(3))
//	own := siptrace.NewSockets(local, p.AdvertisedData())
//	b := siptrace.Builder{Own: own, LocalIP: siptrace.TextEndpoint(p.LocalIP())}
//	b.Build(&rec, &capture, &msg)
//	r := p.Routing(siptrace.Mirroring{})
//	r.Choose(&rec)
//
// What it leaves out: how a message arrived (HEP is package hep's), where a
// record goes (SQL text is package dbschema's) and the event route.
package siptrace
