package kamcfg_test

import (
	"fmt"

	"siptraced/compat/kamcfg"
)

func ExampleParseBytes() {
	cfg, err := kamcfg.ParseBytes("kamailio.cfg", []byte(`#!define MODE 3
loadmodule "siptrace.so"
modparam("siptrace", "trace_mode", MODE)
event_route[siptrace:msg] {
	if ($rm=="OPTIONS") drop;
}
`), kamcfg.Options{})
	if err != nil { // a *kamcfg.Error: file, line, what is wrong, what to do
		fmt.Println(err)
		return
	}
	for _, p := range cfg.Params {
		if p.For("siptrace") {
			fmt.Println(p.Pos, p.Name, p.Value)
		}
	}
	r, _ := cfg.EventRoute("siptrace:msg")
	fmt.Println(r.Tokens[2].Text, r.Tokens[3].Text, r.Tokens[4].Text, r.Tokens[4].Adjoins, r.Tokens[2].Pos)

	_, err = kamcfg.ParseBytes("kamailio.cfg", []byte("modparm(\"siptrace\", \"trace_on\", 1)\n"), kamcfg.Options{})
	fmt.Println(err)
	// Output:
	// kamailio.cfg:3 trace_mode 3
	// $rm = = true kamailio.cfg:5
	// kamailio.cfg:1: unexpected "(" after modparm; did you mean modparam?
}
