package config

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
)

// maskKeys masks the parameter auth_key of a URI.
func maskKeys(uri string) string {
	parts := strings.Split(uri, ";")
	for i, p := range parts {
		if name, _, ok := strings.Cut(p, "="); ok && strings.EqualFold(strings.TrimSpace(name), "auth_key") {
			parts[i] = name + "=" + masked
		}
	}
	return strings.Join(parts, ";")
}

// withoutKeys masks the keys of an entry of destinations in an error about it.
func withoutKeys(err error, entry any) error {
	uri, ok := entry.(string)
	if m, mapping := entry.(map[string]any); mapping {
		uri, ok = m["uri"].(string)
	}
	shown := maskKeys(uri)
	if !ok || shown == uri {
		return err
	}
	text := strings.NewReplacer(uri, shown, strconv.Quote(uri), strconv.Quote(shown)).Replace(err.Error())
	return errors.New(text)
}

// maskUserinfo masks what stands before the hosts of a list of URLs: passwords,
// and tokens, which stand there alone (NATS).
func maskUserinfo(urls string) string {
	var out []string
	for u := range strings.SplitSeq(urls, ",") {
		scheme, rest, ok := strings.Cut(u, "://")
		if !ok {
			scheme, rest = "", u
		} else {
			scheme += "://"
		}
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			user, _, password := strings.Cut(rest[:i], ":")
			if password {
				user += ":" + masked
			} else {
				user = masked
			}
			rest = user + rest[i:]
		}
		out = append(out, scheme+rest)
	}
	return strings.Join(out, ",")
}

// checkURLs refuses a list of servers that can't be read, without showing what may
// be a password. Only the first one needs a scheme, as NATS reads such a list.
func checkURLs(list string) error {
	for u := range strings.SplitSeq(list, ",") {
		if u = strings.TrimSpace(u); !strings.Contains(u, "://") {
			u = "nats://" + u
		}
		if _, err := url.Parse(u); err != nil {
			return errors.New("this is not a list of URLs: want nats://host:4222,host:4222; write special characters of a password as %XX")
		}
	}
	return nil
}

// checkPages looks at a list of addresses of pages.
func checkPages(list string) error {
	for page := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(page))
		if list != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			return errors.New("this is not a list of pages: want http://host:8222,http://host:8222")
		}
	}
	return nil
}
