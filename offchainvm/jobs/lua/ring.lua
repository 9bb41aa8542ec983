-- Ring the resolve doorbell, unless a ring is pending. No token: the flag is the memory.
ring(false)
return 1
