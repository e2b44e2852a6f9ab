// Package kamcfg reads an operator's own kamailio.cfg: what the module
// parameters, the listen lines and the event routes are once defines,
// substitutions and includes have been worked out as Kamailio works them out.
//
//	cfg, err := kamcfg.Parse("/etc/kamailio/kamailio.cfg", kamcfg.Options{})
//	if err != nil { // a *kamcfg.Error: file, line, what is wrong, what to do
//		return err
//	}
//	for _, p := range cfg.Params {
//		if p.For("siptrace") {
//			fmt.Println(p.Pos, p.Name, p.Value)
//		}
//	}
//
// The language is the one Kamailio 5.6.3 accepts, found out by giving it
// snippets, and what came with 5.7 to 6.2: #!ifexp, #!defexp, loadmodule(...),
// socket={...}, coreparam[...], #!undef. Differences are deliberate and few: a
// mistake that Kamailio only logs (an unclosed string or comment at the end of a
// file) is an error here; so are a number that it would cut to 32 or 16 bits,
// defines that contain each other, on which it hangs, and a #!subst with back
// references.
//
// A value that hangs on a variable which only Kamailio knows, or on one of the
// environment that isn't set here, stays unresolved: Value and Token say why. It is
// an error only in a listen line and in the name of an included file.
//
// Left out: the meaning of the statements inside route blocks (their tokens are
// kept for a compiler), the names and types of
// module and core parameters, "modparam before loadmodule", and DNS. Files are
// looked for beside the file that includes them, not in Kamailio's working
// directory. The package never opens a socket; addresses of this host come
// from Options.Interfaces.
package kamcfg
