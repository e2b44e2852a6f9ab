// Package config reads the daemon's configuration from its five places, the
// later ones winning: defaults, kamailio.cfg, siptraced.yaml, the environment
// (SIPTRACED_SIPTRACE__DB_URL), --set. Each effective value knows where it came
// from; every error names the place and the remedy.
//
//	cfg, err := config.Load(config.Sources{KamailioCfg: "/etc/kamailio/kamailio.cfg"})
//	for _, v := range cfg.Values { fmt.Println(v) }
//
// What it leaves out: what the values do.
package config
