package config

import (
	"slices"

	"siptraced/cmd/siptraced/internal/mirror"
	"siptraced/compat/siptrace"
)

// Routing is which sinks take which messages by this configuration.
func (c *Config) Routing() siptrace.Routing {
	return c.Params.Routing(siptrace.Mirroring{
		Static:   slices.ContainsFunc(c.Mirror.Destinations, func(d mirror.Destination) bool { return d.Static }),
		Explicit: c.MirrorExplicit,
	})
}
