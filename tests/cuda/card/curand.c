/* libcurand: the provider is linked to it and calls nothing of it. */
extern const int curand_is_a_stand_in;
const int curand_is_a_stand_in = 1;
