-- Asks Keyturn whether a request may pass: `http-request lua.keyturn` in haproxy.cfg, KEYTURN_URL in its section `global`.
-- HAProxy 2.6 or newer, built with Lua. Whatever goes wrong here, the request does not pass.

local URL = os.getenv("KEYTURN_URL") or "http://127.0.0.1:8080/auth"
-- Milliseconds for one attempt. HAProxy makes four where Keyturn is silent, so that a caller waits four times as long.
local TIMEOUT = 500

-- Keyturn's words about the caller. A gateway of its own KEYTURN_HEADER_PREFIX changes them here and in haproxy.cfg.
local IDENTITY = { "mia-userid", "mia-groups", "mia-userproperties", "mia-clientid" }
-- What the caller has sent that Keyturn needs to see; two of a kind stay two.
local CREDENTIALS = { "authorization", "cookie", "x-request-id", "traceparent" }
-- What a denied caller sees of Keyturn's answer.
local ANSWER = { "content-type", "cache-control", "www-authenticate", "retry-after", "x-request-id", "mia-allowed" }

local function deny(txn, status, response)
    local reply = txn:reply({ status = status })
    if response ~= nil then
        for _, name in ipairs(ANSWER) do
            for _, value in pairs(response.headers[name] or {}) do
                reply:add_header(name, value)
            end
        end
        reply:set_body(response.body or "")
    else
        reply:add_header("retry-after", "1")
    end
    txn:done(reply)
end

local function ask(txn)
    local sent = txn.http:req_get_headers()
    local question = {
        ["x-original-method"] = { txn.f:method() },
        ["x-original-uri"] = { txn.f:pathq() },
    }
    local host = txn.f:req_fhdr("host")
    if host ~= nil and host ~= "" then
        question["x-original-host"] = { host }
    end
    for _, name in ipairs(CREDENTIALS) do
        if sent[name] ~= nil then
            local values = {}
            for _, value in pairs(sent[name]) do
                table.insert(values, value)
            end
            question[name] = values
        end
    end
    return core.httpclient():get({ url = URL, headers = question, timeout = TIMEOUT })
end

core.register_action("keyturn", { "http-req" }, function(txn)
    local asked, response = pcall(ask, txn)
    if not asked or response == nil or type(response.status) ~= "number" then
        return deny(txn, 503, nil)
    end
    local allowed = response.headers ~= nil and response.headers["mia-allowed"]
    if response.status == 200 and allowed and allowed[0] == "1" then
        for _, name in ipairs(IDENTITY) do
            local values = response.headers[name]
            -- Caller's own were deleted before; an empty value says that there is no identity.
            if values ~= nil and values[0] ~= nil and values[0] ~= "" then
                txn.http:req_set_header(name, values[0])
            end
        end
        return
    end
    if response.status == 401 or response.status == 403 then
        return deny(txn, response.status, response)
    end
    deny(txn, 503, nil)
end)
