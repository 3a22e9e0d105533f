-- The buckets, slots and windows of one request, checked and changed in one step. What they mean:
-- gateway/limits/__init__.py; the same rules in Python: memory.py.
--
-- KEYS  two per demand: its count, and its leases (which a bucket does not have)
-- ARGV  verb, grant, lease [ms], now [ms] or '' for the server's clock, then five per demand:
--       shape (bucket | slot | window), amount, capacity, how long to keep it [ms],
--       extra: for reserve what was spent before ('?' = tell me), for settle what was used
-- A bucket's count is 'grains missing:seen at [ms]'; a counter's is what is used. Leases are a
-- sorted set of 'grant:amount' by end; those of a window that ended unsettled stay, at -1.

local GRAINS = 60000
local SLACK = 60000 -- [ms] a key outlives its last use by this: less would race with the clock
local AT_THE_END = -1

local verb, grant, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = tonumber(ARGV[4])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local function int(number)
  return string.format('%.0f', number)
end

local demands = {}
for i = 1, #KEYS / 2 do
  local at = 5 * i
  demands[i] = {
    count = KEYS[2 * i - 1],
    leases = KEYS[2 * i],
    shape = ARGV[at],
    amount = tonumber(ARGV[at + 1]),
    capacity = tonumber(ARGV[at + 2]),
    keep = tonumber(ARGV[at + 3]),
    extra = ARGV[at + 4],
    member = grant .. ':' .. ARGV[at + 1],
  }
end

local function keep(key, ms)
  if redis.call('PTTL', key) < ms then
    redis.call('PEXPIRE', key, int(ms))
  end
end

local function missing(demand)
  local grains, seen = string.match(redis.call('GET', demand.count) or '', '(%d+):(%d+)')
  if not grains then
    return 0
  end
  return math.max(0, grains - demand.capacity * math.max(0, now - seen))
end

local function fill(demand, grains)
  if grains <= 0 then
    redis.call('DEL', demand.count)
  else
    local full = math.ceil(grains / demand.capacity)
    redis.call('SET', demand.count, int(grains) .. ':' .. int(now), 'PX', int(full + SLACK))
  end
end

local function reclaim(demand)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', demand.leases, 0, now)) do
    redis.call('DECRBY', demand.count, string.match(member, ':(%d+)$'))
    if demand.shape == 'window' then
      redis.call('ZADD', demand.leases, -1, member)
    else
      redis.call('ZREM', demand.leases, member)
    end
  end
end

local function wait(demand)
  if demand.shape == 'bucket' then
    demand.used = missing(demand)
    local over = demand.used + (demand.amount - demand.capacity) * GRAINS
    return over > 0 and math.ceil(over / demand.capacity) or 0
  end
  reclaim(demand)
  demand.used = tonumber(redis.call('GET', demand.count) or demand.extra)
  return demand.used and demand.used + demand.amount > demand.capacity and AT_THE_END or 0
end

local function take(demand)
  if demand.shape == 'bucket' then
    demand.used = demand.used + demand.amount * GRAINS
    fill(demand, demand.used)
  else
    demand.used = demand.used + demand.amount
    local ms = math.max(demand.keep, lease) + SLACK
    redis.call('SET', demand.count, int(demand.used), 'KEEPTTL')
    redis.call('ZADD', demand.leases, int(now + lease), demand.member)
    keep(demand.count, ms)
    keep(demand.leases, ms)
  end
end

local function level(demand)
  if demand.shape == 'bucket' then
    local left = demand.capacity - math.ceil(demand.used / GRAINS)
    return math.max(0, left), math.ceil(demand.used / demand.capacity)
  end
  return math.max(0, demand.capacity - demand.used), AT_THE_END
end

local function reserve()
  local unknown, granted, waits = {}, true, {}
  for i, demand in ipairs(demands) do
    waits[i] = wait(demand)
    granted = granted and waits[i] == 0
    if not demand.used then
      unknown[#unknown + 1] = i - 1
    end
  end
  if #unknown > 0 then
    return { 'unknown', unknown }
  end
  local reply = {}
  for i, demand in ipairs(demands) do
    if granted then
      take(demand)
    end
    local left, reset = level(demand)
    reply[i] = { waits[i], left, reset }
  end
  return { granted and 'granted' or 'refused', reply }
end

local function settle()
  for _, demand in ipairs(demands) do
    local used = tonumber(demand.extra)
    if demand.shape == 'bucket' then
      fill(demand, missing(demand) + (used - demand.amount) * GRAINS)
    else
      local lapses = redis.call('ZSCORE', demand.leases, demand.member)
      if lapses then
        redis.call('ZREM', demand.leases, demand.member)
        redis.call('INCRBY', demand.count, int(used - (tonumber(lapses) < 0 and 0 or demand.amount)))
        keep(demand.count, demand.keep + SLACK)
      end
    end
  end
  return 1
end

local function renew()
  local held = 1
  for _, demand in ipairs(demands) do
    if demand.shape ~= 'bucket' then
      local ends = redis.call('ZSCORE', demand.leases, demand.member)
      if ends and tonumber(ends) > now then
        redis.call('ZADD', demand.leases, int(now + lease), demand.member)
        keep(demand.count, lease + SLACK)
        keep(demand.leases, lease + SLACK)
      else
        held = 0
      end
    end
  end
  return held
end

if verb == 'reserve' then
  return reserve()
elseif verb == 'settle' then
  return settle()
end
return renew()
