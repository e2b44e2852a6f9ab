package jsonrpc

import (
	"slices"

	"siptraced/rpc"
)

// Shape makes of what came over ctl what jsonrpcs would show. Over ctl a
// list of one looks like a single value, and an array within a struct like a
// struct, so that one has to know the methods.
func Shape(method string, v any) any {
	list, many := v.(rpc.List)
	switch {
	case slices.Contains(lists, method) && v == nil:
		return rpc.List{}
	case slices.Contains(lists, method) && !many:
		return rpc.List{v}
	case many && slices.Contains(records, method):
		return rpc.Records(list)
	}
	if names, ok := arrays[method]; ok {
		return withArrays(v, names, slices.Contains(names, ""))
	}
	return v
}

// withArrays turns the members of that names within v, and v itself if it is an
// array, into a List of structs with one member each.
func withArrays(v any, names []string, isArray bool) any {
	s, ok := v.(rpc.Struct)
	if !ok {
		return v
	}
	out, list := make(rpc.Struct, len(s)), make(rpc.List, len(s))
	for i, m := range s {
		m.Value = withArrays(m.Value, names, slices.Contains(names, m.Name))
		out[i], list[i] = m, rpc.Struct{m}
	}
	if isArray {
		return list
	}
	return out
}

// lists are the methods that Kamailio 5.6 and its modules mark as lists
// (RET_ARRAY).
var lists = []string{
	"cfg.list", "cnt.grps_list", "cnt.list_groups", "cnt.list_vars", "cnt.var_list", "core.arg", "core.echo",
	"core.modules", "core.ppdefines", "core.ppdefines_full", "core.printi", "core.prints", "core.ps", "core.psa",
	"core.psx", "core.pwd", "core.tcp_list", "corex.list_aliases", "corex.list_sockets", "dbcl.list_clusters",
	"dbcl.list_connections", "dlg.briefing", "dlg.list", "dlg.list_ctx", "dlg.list_match", "dlg.list_match_ctx",
	"dlg.profile_list", "dmq.list_nodes", "dns.view", "htable.dump", "htable.listTables", "htable.stats",
	"imc.list_rooms", "jsonrpc.echo", "mod.mem_stats", "mod.mem_statsx", "mod.stats", "mqueue.get_sizes",
	"mtree.list", "mtree.summary", "permissions.addressDump", "permissions.subnetDump", "pkg.stats", "pl.get_pipes",
	"pl.list", "pl.stats", "rtpengine.show", "rtpproxy.list", "stats.get_statistics", "system.listMethods",
	"tls.list", "tm.list", "tm.t_uac_wait", "uac.reg_dump",
}

// records are methods that give several answers and are not marked: of those
// jsonrpcs shows the last one. Of a method that is neither here nor in lists all
// answers are shown.
var records = []string{
	"dns.mem_info", "dst_blocklist.mem_info", "keepalive.list", "rl.stats", "stats.clear_statistics",
}

// arrays are the members that are arrays; "" is the result itself.
var arrays = map[string][]string{
	"core.aliases_list": {"aliases"},
	"core.sockets_list": {""},
	"dispatcher.list":   {"RECORDS", "TARGETS"},
	"pike.list":         {"list"},
	"pike.top":          {"list"},
	"ul.dump":           {"Domains", "AoRs", "Contacts"},
	"ul.lookup":         {"Contacts"},
}
