package main

import (
	"net/http"
	"slices"
)

// adminGroups are the commands of an administrator, but keys.
func adminGroups() []adminGroup {
	return []adminGroup{
		accountCalls(), userCalls(), roleCalls(), serviceIDCalls(), settingCalls(), limitCalls(), sessionCalls(), grantCalls(), contactCalls(), reportCalls(),
	}
}

func accountCalls() adminGroup {
	columns := []string{"id", "name", "owner_iam_id", "created_at"}
	return adminGroup{use: "accounts", short: "Make and see accounts", calls: []adminCall{
		{use: "list", short: "List the accounts that you are in", example: "accounts list", method: http.MethodGet, path: "/v1/accounts", list: "accounts", columns: columns},
		{use: "get ACCOUNT-ID", short: "Show one account, and what you are in it", example: "accounts get 8d63…", method: http.MethodGet, path: "/v1/accounts/{1}", columns: slices.Concat(columns, []string{"roles", "is_owner", "key_views"})},
		{
			use: "create", short: "Make an account", example: "accounts create --name Acme --owner User-…", method: http.MethodPost, path: "/v1/accounts", columns: columns,
			flags: []adminFlag{{name: "name", usage: "its name"}, {name: "owner", field: "owner_iam_id", usage: "IAM id of its owner; you if not given"}},
		},
	}}
}

func userCalls() adminGroup {
	columns := []string{"iam_id", "name", "email", "state", "roles", "parent", "functional"}
	const users, user = "/v2/accounts/{account}/users", "/v2/accounts/{account}/users/{1}"
	named := []adminFlag{{name: "name", usage: "name"}, {name: "firstname", usage: "first name"}, {name: "lastname", usage: "last name"}, {name: "email", usage: "e-mail address"}}
	return adminGroup{use: "users", short: "Invite, change and remove the users of an account", calls: []adminCall{
		{
			use: "list", short: "List the users", example: "users list --search role:Administrator", method: http.MethodGet, path: users, list: "resources", next: "next_url", columns: columns,
			flags: []adminFlag{{name: "search", usage: "field:value, such as role:Administrator or email:ada@example.com", inQuery: true}},
		},
		{use: "get IAM-ID", short: "Show one user", example: "users get User-…", method: http.MethodGet, path: user, columns: append([]string{"id", "firstname", "lastname", "added_on", "is_owner"}, columns...)},
		{
			use: "invite", short: "Take a user into the account", example: "users invite --email ada@example.com --role Viewer", method: http.MethodPost, path: users, wrap: "users",
			list: "resources", columns: []string{"id", "email", "state"},
			flags: append([]adminFlag{
				{name: "iam-id", usage: "IAM id of somebody who is known already; one is made if not given"},
				{name: "role", field: "roles", usage: "a role", kind: listFlag},
				{name: "parent", usage: "who stands above the user in the classic hierarchy; you if not given"},
				{name: "functional", usage: "a functional ID: one that programs share", kind: boolFlag},
			}, named...),
		},
		{use: "update IAM-ID", short: "Change the given fields of a user", example: "users update User-… --name 'Ada Lovelace'", method: http.MethodPatch, path: user, flags: named},
		{use: "remove IAM-ID", short: "Remove a user; its keys of this account are refused from then on", example: "users remove User-…", method: http.MethodDelete, path: user},
		{
			use: "parent IAM-ID", short: "Move a user in the classic hierarchy", example: "users parent User-… --parent User-…", method: http.MethodPut, path: user + "/parent",
			flags: []adminFlag{{name: "parent", usage: "who stands above the user from now on"}}, columns: []string{"iam_id", "parent", "ancestors"},
		},
		{use: "functional IAM-ID", short: "Mark a user as a functional ID, which programs share", example: "users functional User-…", method: http.MethodPut, path: user + "/functional"},
		{use: "person IAM-ID", short: "Mark a user as a person", example: "users person User-…", method: http.MethodDelete, path: user + "/functional"},
		{
			use: "allow IAM-ID", short: "Say from which addresses a user's keys are taken", example: "users allow User-… --addresses 192.0.2.0/24,2001:db8::1", method: http.MethodPatch, path: user + "/settings",
			flags: []adminFlag{{name: "addresses", field: "allowed_ip_addresses", usage: "addresses, ranges a-b and networks, separated by commas; empty for all"}},
		},
	}}
}

func roleCalls() adminGroup {
	return adminGroup{use: "roles", short: "See and set who has which role", calls: []adminCall{
		{
			use: "list", short: "List the users with their roles", example: "roles list -o json", method: http.MethodGet, path: "/v2/accounts/{account}/users", list: "resources", next: "next_url",
			columns: []string{"iam_id", "name", "roles", "is_owner"},
		},
		{
			use: "set IAM-ID", short: "Set all roles of a user, or of a service ID", example: "roles set User-… --role Viewer --role 'User API key creator'",
			method: http.MethodPut, path: "/v2/accounts/{account}/users/{1}/roles", columns: []string{"iam_id", "roles"},
			flags: []adminFlag{{name: "role", field: "roles", usage: "Administrator, Editor, Operator, Viewer, 'User API key creator', 'Service ID creator', Verifier, Auditor, Ingester or Responder", kind: listFlag}},
		},
	}}
}

func serviceIDCalls() adminGroup {
	columns := []string{"id", "name", "iam_id", "locked", "account_id", "created_at"}
	const one = "/v1/serviceids/{1}"
	named := []adminFlag{{name: "name", usage: "name"}, {name: "description", usage: "what it is for"}}
	return adminGroup{use: "serviceids", short: "Make, change and end service IDs", calls: []adminCall{
		{
			use: "list", short: "List the service IDs", example: "serviceids list --name ci", method: http.MethodGet, path: "/v1/serviceids", query: map[string]string{"pagesize": "100"},
			list: "serviceids", next: "next", columns: columns,
			flags: []adminFlag{{name: "name", usage: "only those of that name", inQuery: true}, {name: "account", field: "account_id", usage: "only those of this account", inQuery: true}},
		},
		{use: "get SERVICE-ID", short: "Show one service ID", example: "serviceids get ServiceId-…", method: http.MethodGet, path: one, columns: slices.Concat(columns, []string{"description", "entity_tag", "modified_at", "crn"})},
		{
			use: "create", short: "Make a service ID", example: "serviceids create --name ci --description 'builds'", method: http.MethodPost, path: "/v1/serviceids", columns: columns,
			flags: append([]adminFlag{{name: "account", field: "account_id", usage: "its account"}}, named...),
		},
		{use: "update SERVICE-ID", short: "Change the given fields", example: "serviceids update ServiceId-… --description ''", method: http.MethodPut, path: one, anyTag: true, flags: named, columns: columns},
		{use: "lock SERVICE-ID", short: "Refuse changes of a service ID; its keys still work", example: "serviceids lock ServiceId-…", method: http.MethodPost, path: one + "/lock"},
		{use: "unlock SERVICE-ID", short: "Allow changes of a service ID", example: "serviceids unlock ServiceId-…", method: http.MethodDelete, path: one + "/lock"},
		{use: "delete SERVICE-ID", short: "End a service ID and all its keys", example: "serviceids delete ServiceId-…", method: http.MethodDelete, path: one},
	}}
}

func settingCalls() adminGroup {
	fields := []string{
		"restrict_create_platform_apikey", "restrict_create_service_id", "restrict_user_list_visibility", "allowed_ip_addresses", "mfa",
		"session_expiration_in_seconds", "session_invalidation_in_seconds", "max_sessions_per_identity",
		"system_access_token_expiration_in_seconds", "system_refresh_token_expiration_in_seconds",
	}
	columns := append([]string{"account_id", "entity_tag", "record_reads"}, fields...)
	effective := make([]string, len(fields))
	for i, f := range fields {
		effective[i] = "effective." + f
	}
	return adminGroup{use: "settings", short: "See and change the settings of an account", calls: []adminCall{
		{use: "show", short: "Show the settings", example: "settings show", method: http.MethodGet, path: "/v1/accounts/{account}/settings/identity", columns: columns},
		{use: "effective", short: "Show what holds, with what is not set filled in", example: "settings effective", method: http.MethodGet, path: "/v1/accounts/{account}/effective_settings/identity", columns: append([]string{"account_id"}, effective...)},
		{
			use: "set", short: "Change the given settings", example: "settings set --restrict-user-keys RESTRICTED --record-reads", method: http.MethodPut, path: "/v1/accounts/{account}/settings/identity",
			anyTag: true, columns: columns,
			flags: []adminFlag{
				{name: "restrict-user-keys", field: fields[0], usage: "RESTRICTED, NOT_RESTRICTED or NOT_SET: only creators make user keys"},
				{name: "restrict-service-ids", field: fields[1], usage: "the same for service IDs"},
				{name: "restrict-user-list", field: fields[2], usage: "the same for who sees the list of users"},
				{name: "allowed-addresses", field: fields[3], usage: "addresses, ranges a-b and networks, separated by commas; empty for all"},
				{name: "mfa", usage: "as with IBM; it is kept, nothing more"},
				{name: "session-expiration", field: fields[5], usage: "seconds, or NOT_SET"},
				{name: "session-invalidation", field: fields[6], usage: "seconds without use, or NOT_SET"},
				{name: "max-sessions", field: fields[7], usage: "sessions of one identity, or NOT_SET"},
				{name: "access-token", field: fields[8], usage: "seconds that an access token lives, or NOT_SET"},
				{name: "refresh-token", field: fields[9], usage: "seconds that a refresh token lives, or NOT_SET"},
				{name: "record-reads", usage: "record every read and list of keys", kind: boolFlag},
			},
		},
		{use: "access", short: "Show which identities of other accounts are let in", example: "settings access -o json", method: http.MethodGet, path: "/v1/accounts/{account}/settings/access_management", columns: []string{"external_account_identity_interaction"}},
		{
			use: "set-access", short: "Say which identities of other accounts are let in", example: "settings set-access --file access.json", method: http.MethodPut,
			path: "/v1/accounts/{account}/settings/access_management", anyTag: true, body: true, columns: []string{"external_account_identity_interaction"},
		},
	}}
}

func limitCalls() adminGroup {
	return adminGroup{use: "limits", short: "See and set how many keys an identity may have", calls: []adminCall{
		{
			use: "show", short: "Show the limit, and how many keys the given identities have", example: "limits show --identities User-…,iam-ServiceId-…", method: http.MethodGet,
			path: "/v1/accounts/{account}/limits/identity", columns: []string{"apikeys_per_identity.limit", "apikeys_per_identity.limits", "apikeys_per_identity.identities"},
			flags: []adminFlag{{name: "identities", field: "apikeys_per_identity", usage: "IAM ids, with commas between", inQuery: true}},
		},
		{
			use: "set", short: "Set all limits: what is not named has 20 again", example: "limits set --keys 30 --identity iam-ServiceId-…=100", method: http.MethodPut,
			path: "/v1/accounts/{account}/limits/identity", columns: []string{"apikeys_per_identity.limit", "apikeys_per_identity.limits"},
			flags: []adminFlag{
				{name: "keys", field: "apikeys_per_identity", usage: "keys of one identity", kind: numberFlag},
				{name: "identity", field: "identities", usage: "IAM-ID=NUMBER: another number for one identity", kind: numberPers},
			},
		},
	}}
}

func sessionCalls() adminGroup {
	return adminGroup{use: "sessions", short: "See and end sessions", calls: []adminCall{
		{
			use: "list", short: "List your sessions, or with --account those of everybody in it", example: "sessions list --account 8d63… --iam-id User-…", method: http.MethodGet, path: "/v1/sessions",
			list: "sessions", next: "next", columns: []string{"id", "iam_id", "apikey_id", "created_at", "refreshed_at", "ends_at", "source_ip"},
			flags: []adminFlag{{name: "account", field: "account_id", usage: "account", inQuery: true}, {name: "iam-id", usage: "only those of this identity", inQuery: true}},
		},
		{use: "revoke SESSION-ID", short: "End a session: its tokens are refused from then on", example: "sessions revoke 5f0c…", method: http.MethodDelete, path: "/v1/sessions/{1}"},
	}}
}

func grantCalls() adminGroup {
	columns := []string{"account_id", "actions", "resources"}
	return adminGroup{use: "grants", short: "See and set what an identity may be used for", calls: []adminCall{
		{use: "show IAM-ID", short: "Show what an identity may do; no grants: it is not checked", example: "grants show iam-ServiceId-…", method: http.MethodGet, path: "/v1/identities/{1}/grants", list: ".", columns: columns},
		{
			use: "set IAM-ID", short: "Set what an identity may do in all accounts where you assign", example: `grants set User-… --file grants.json   ([{"account_id":"…","actions":["s3:Get*"],"resources":["*"]}])`,
			method: http.MethodPut, path: "/v1/identities/{1}/grants", body: true, list: ".", columns: columns,
		},
	}}
}

func contactCalls() adminGroup {
	columns := []string{"account_id", "contacts", "stale_after_days", "stale"}
	const path = "/v1/accounts/{account}/security_contacts"
	return adminGroup{use: "contacts", short: "See, set and confirm the security contacts of an account", calls: []adminCall{
		{use: "show", short: "Show the contacts, and whether they are stale", example: "contacts show", method: http.MethodGet, path: path, columns: columns},
		{use: "set", short: "Set all contacts", example: `contacts set --file contacts.json   ({"contacts":[{"name":"Ada","email":"ada@example.com"}]})`, method: http.MethodPut, path: path, body: true, columns: columns},
		{use: "confirm", short: "Say that all contacts are still right", example: "contacts confirm", method: http.MethodPost, path: path + "/confirm", columns: columns},
	}}
}

func reportCalls() adminGroup {
	columns := []string{"reference", "created_by", "report_duration", "report_start_time", "report_end_time", "users", "serviceids", "apikeys"}
	const path = "/v1/activity/accounts/{account}/report"
	return adminGroup{use: "reports", short: "Ask who did not sign in, and which rights nobody uses", calls: []adminCall{
		{
			use: "inactive", short: "Ask for a report on who and what did not sign in; 'get' shows it", example: "reports inactive --hours 720", method: http.MethodPost, path: path, columns: []string{"reference"},
			flags: []adminFlag{{name: "hours", field: "duration", usage: "how long; 720 if not given", kind: numberFlag, inQuery: true}},
		},
		{use: "get REFERENCE", short: "Show a report, or 'latest'; nothing while it is being made", example: "reports get latest -o json", method: http.MethodGet, path: path + "/{1}", columns: columns, empty: "it is being made; ask again"},
		{
			use: "privilege", short: "Compare what each key may do with what it did", example: "reports privilege --days 30 -o json", method: http.MethodGet, path: "/v1/accounts/{account}/reports/privilege",
			query: map[string]string{"pagesize": "100"}, list: "keys", next: "next", columns: []string{"key_id", "name", "iam_id", "unrestricted", "granted", "unused"},
			flags: []adminFlag{{name: "days", usage: "how long", kind: numberFlag, inQuery: true}},
		},
	}}
}
