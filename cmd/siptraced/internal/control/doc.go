// Package control has the methods of remote control: siptrace.status as the
// module has it, the statistics and core commands that Kamailio's clients ask
// for, and siptraced's own. Transports and codecs are package rpc's.
//
//	c := control.New(daemon, changed)
//	err := c.Register(registry)   // kamcmd, kamctl, kamcli, HTTP
//	err = c.RegisterMI(mi)        // openserctl
//	h := serve.Handlers{Registry: registry, MI: mi, Flexisip: c}
//
// What it leaves out: what a change sets in motion (the daemon's).
package control
